//! Walks the fields of a protobuf message in place: numbers, wire types, spans. Knows no message.
//! In: bytes and a range of them. Out: one field at a time. O(bytes), no recursion, no allocation.
//! Not here: the shapes that the hot path knows by heart (`gateway/decode/remote_write_v1.rs`).

use crate::base::varint::read_varint;

/// Why bytes are not a protobuf message. The offset is that of the field's tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProtobufFault {
    /// A field reaches over the end of its message.
    Truncated {
        /// Where.
        offset_bytes: usize,
    },
    /// A varint is cut off or longer than 64 bits, or a field's number is 0 or above 2^29 - 1.
    BadVarint {
        /// Where.
        offset_bytes: usize,
    },
    /// A wire type that the field cannot have, or that does not exist. Groups (3, 4) are not read.
    BadWireType {
        /// Where.
        offset_bytes: usize,
        /// The low three bits of the tag.
        wire_type: u8,
    },
}

impl ProtobufFault {}

/// One field of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// From 1.
    pub number: u32,
    /// Offset of its tag.
    pub offset_bytes: usize,
    /// What it holds.
    pub value: FieldValue,
}

/// What a field holds, by wire type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldValue {
    /// Wire type 0.
    Varint(u64),
    /// Wire type 1.
    Fixed64(u64),
    /// Wire type 2: the range of its content in the bytes.
    Span {
        /// First byte.
        start: usize,
        /// Behind the last byte.
        end: usize,
    },
    /// Wire type 5.
    Fixed32(u32),
}

impl FieldValue {
    fn wire_type(self) -> u8 {
        match self {
            Self::Varint(_) => 0,
            Self::Fixed64(_) => 1,
            Self::Span { .. } => 2,
            Self::Fixed32(_) => 5,
        }
    }
}

impl Field {
    /// The content's range, if the field is length-delimited.
    pub fn span(&self) -> Result<(usize, usize), ProtobufFault> {
        match self.value {
            FieldValue::Span { start, end } => Ok((start, end)),
            _ => Err(self.bad_wire_type()),
        }
    }

    /// The fault of a known field that has another wire type than its message says.
    pub fn bad_wire_type(&self) -> ProtobufFault {
        let wire_type = self.value.wire_type();
        ProtobufFault::BadWireType { offset_bytes: self.offset_bytes, wire_type }
    }
}

/// The fields of one message: a cursor over `bytes[start..end]`.
#[derive(Clone, Debug)]
pub struct Fields<'a> {
    bytes: &'a [u8],
    offset: usize,
}

impl<'a> Fields<'a> {
    /// The fields of the message at `bytes[start..end]`; offsets that it yields are those in
    /// `bytes`.
    pub fn new(bytes: &'a [u8], start: usize, end: usize) -> Self {
        Self { bytes: &bytes[..end], offset: start }
    }

    /// Where the next field begins.
    pub fn offset_bytes(&self) -> usize {
        self.offset
    }

    /// The next field; `None` at the end of the message.
    pub fn next_field(&mut self) -> Result<Option<Field>, ProtobufFault> {
        let offset_bytes = self.offset;
        if offset_bytes >= self.bytes.len() {
            return Ok(None);
        }
        let tag = self.varint(offset_bytes)?;
        let number = match u32::try_from(tag >> 3) {
            Ok(number) if (1..1 << 29).contains(&number) => number,
            _ => return Err(ProtobufFault::BadVarint { offset_bytes }),
        };
        let value = match tag & 7 {
            0 => FieldValue::Varint(self.varint(offset_bytes)?),
            1 => FieldValue::Fixed64(u64::from_le_bytes(self.fixed(offset_bytes)?)),
            2 => {
                let len_bytes = self.varint(offset_bytes)?;
                let start = self.offset;
                let len_bytes = usize::try_from(len_bytes).ok();
                let end = len_bytes.and_then(|len_bytes| start.checked_add(len_bytes));
                let Some(end) = end.filter(|&end| end <= self.bytes.len()) else {
                    return Err(ProtobufFault::Truncated { offset_bytes });
                };
                self.offset = end;
                FieldValue::Span { start, end }
            }
            5 => FieldValue::Fixed32(u32::from_le_bytes(self.fixed(offset_bytes)?)),
            wire_type => {
                #[expect(clippy::cast_possible_truncation, reason = "three bits")]
                let wire_type = wire_type as u8;
                return Err(ProtobufFault::BadWireType { offset_bytes, wire_type });
            }
        };
        Ok(Some(Field { number, offset_bytes, value }))
    }

    fn varint(&mut self, offset_bytes: usize) -> Result<u64, ProtobufFault> {
        read_varint(self.bytes, &mut self.offset).ok_or(ProtobufFault::BadVarint { offset_bytes })
    }

    fn fixed<const N: usize>(&mut self, offset_bytes: usize) -> Result<[u8; N], ProtobufFault> {
        let rest = self.bytes.get(self.offset..);
        let Some(fixed) = rest.and_then(|rest| rest.first_chunk::<N>()) else {
            return Err(ProtobufFault::Truncated { offset_bytes });
        };
        self.offset += N;
        Ok(*fixed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    #[expect(clippy::needless_pass_by_value, reason = "cases read better")]
    fn check(bytes: &[u8], want: Result<Vec<(u32, FieldValue)>, ProtobufFault>) {
        let mut fields = Fields::new(bytes, 0, bytes.len());
        let mut got = Vec::new();
        let result = loop {
            match fields.next_field() {
                Ok(Some(field)) => got.push((field.number, field.value)),
                Ok(None) => break Ok(got),
                Err(fault) => break Err(fault),
            }
        };
        assert_eq!(result, want, "bytes={bytes:02x?}");
    }

    #[test]
    fn every_wire_type() {
        check(b"", Ok(vec![]));
        check(b"\x08\x96\x01", Ok(vec![(1, FieldValue::Varint(150))]));
        check(b"\x09\x01\0\0\0\0\0\0\0", Ok(vec![(1, FieldValue::Fixed64(1))]));
        check(b"\x12\x02ab", Ok(vec![(2, FieldValue::Span { start: 2, end: 4 })]));
        check(b"\x15\x02\0\0\0", Ok(vec![(2, FieldValue::Fixed32(2))]));
    }

    #[test]
    fn faults_name_the_field() {
        check(b"\x08\x01\x12\x03ab", Err(ProtobufFault::Truncated { offset_bytes: 2 }));
        check(b"\x09\x01\x02", Err(ProtobufFault::Truncated { offset_bytes: 0 }));
        check(b"\x08\x96", Err(ProtobufFault::BadVarint { offset_bytes: 0 }));
        check(b"\x00\x01", Err(ProtobufFault::BadVarint { offset_bytes: 0 }));
        check(b"\x0b", Err(ProtobufFault::BadWireType { offset_bytes: 0, wire_type: 3 }));
        let above_memory = b"\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01";
        check(above_memory, Err(ProtobufFault::Truncated { offset_bytes: 0 }));
    }
}
