//! One line of an export -> labels, timestamps and values, to the bit. In: a JSON object with
//! `metric`, `values` and `timestamps`, in any order. Out: columns. O(length), one pass. A parser
//! of our own because a value must keep its bits (the standard library rounds decimals correctly;
//! serde_json does so only with a feature).

/// A parsed line. Reused, so that its columns keep their memory.
#[derive(Debug, Default, PartialEq)]
pub struct ExportLine {
    /// Label names and values, sorted by name.
    pub labels: Vec<(String, String)>,
    /// Unix milliseconds.
    pub timestamps_ms: Vec<i64>,
    /// As many; `null` is NaN.
    pub values: Vec<f64>,
}

/// What is wrong, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LineError {
    /// Bytes into the line.
    pub offset_bytes: usize,
    /// What should stand there.
    pub expected: &'static str,
}

impl ExportLine {
    /// Parses `line`, with or without its newline.
    pub fn parse(&mut self, line: &[u8]) -> Result<(), LineError> {
        self.labels.clear();
        self.timestamps_ms.clear();
        self.values.clear();
        let mut cursor = Cursor { line, offset: 0 };
        cursor.expect(b'{', "{")?;
        loop {
            let key = cursor.string()?;
            cursor.expect(b':', ":")?;
            match key.as_str() {
                "metric" => self.parse_labels(&mut cursor)?,
                "values" => cursor.array(|text| {
                    self.values.push(value_of(text)?);
                    Some(())
                })?,
                "timestamps" => {
                    cursor.array(|text| {
                        self.timestamps_ms.push(text.parse().ok()?);
                        Some(())
                    })?;
                }
                _ => return Err(cursor.error("metric, values or timestamps")),
            }
            if !cursor.skip_if(b',') {
                break;
            }
        }
        cursor.expect(b'}', "}")?;
        if cursor.peek().is_some() {
            return Err(cursor.error("the end of the line"));
        }
        if self.values.len() != self.timestamps_ms.len() {
            return Err(cursor.error("as many values as timestamps"));
        }
        self.labels.sort();
        Ok(())
    }

    fn parse_labels(&mut self, cursor: &mut Cursor<'_>) -> Result<(), LineError> {
        cursor.expect(b'{', "{")?;
        if cursor.skip_if(b'}') {
            return Ok(());
        }
        loop {
            let name = cursor.string()?;
            cursor.expect(b':', ":")?;
            self.labels.push((name, cursor.string()?));
            if !cursor.skip_if(b',') {
                return cursor.expect(b'}', "}");
            }
        }
    }
}

fn value_of(text: &str) -> Option<f64> {
    match text {
        "null" | "\"NaN\"" => Some(f64::NAN),
        "\"Infinity\"" | "\"+Inf\"" => Some(f64::INFINITY),
        "\"-Infinity\"" | "\"-Inf\"" => Some(f64::NEG_INFINITY),
        _ => text.parse().ok(),
    }
}

struct Cursor<'a> {
    line: &'a [u8],
    offset: usize,
}

impl Cursor<'_> {
    fn error(&self, expected: &'static str) -> LineError {
        LineError { offset_bytes: self.offset, expected }
    }

    /// The next byte that is not white space.
    fn peek(&mut self) -> Option<u8> {
        let rest = &self.line[self.offset..];
        self.offset += rest.len() - rest.trim_ascii_start().len();
        self.line.get(self.offset).copied()
    }

    fn skip_if(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.offset += usize::from(found);
        found
    }

    fn expect(&mut self, byte: u8, expected: &'static str) -> Result<(), LineError> {
        if self.skip_if(byte) { Ok(()) } else { Err(self.error(expected)) }
    }

    /// serde_json knows the escapes; strings are few.
    fn string(&mut self) -> Result<String, LineError> {
        if self.peek() != Some(b'"') {
            return Err(self.error("a string"));
        }
        let start = self.offset;
        let mut end = start + 1;
        while let Some(&byte) = self.line.get(end) {
            match byte {
                b'"' => break,
                b'\\' => end += 2,
                _ => end += 1,
            }
        }
        let text = self.line.get(start..=end).ok_or_else(|| self.error("a string"))?;
        let string = serde_json::from_slice(text).map_err(|_| self.error("a string"))?;
        self.offset = end + 1;
        Ok(string)
    }

    fn array(&mut self, mut push: impl FnMut(&str) -> Option<()>) -> Result<(), LineError> {
        self.expect(b'[', "[")?;
        if self.skip_if(b']') {
            return Ok(());
        }
        loop {
            let rest = &self.line[self.offset..];
            let end = rest.iter().position(|byte| matches!(byte, b',' | b']'));
            let end = end.ok_or_else(|| self.error("] or ,"))?;
            let text = std::str::from_utf8(rest[..end].trim_ascii()).ok();
            text.and_then(&mut push).ok_or_else(|| self.error("a number"))?;
            self.offset += end;
            if !self.skip_if(b',') {
                return self.expect(b']', "]");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encode::vm_json;

    #[test]
    fn round_trip_with_the_encoder() {
        let labels = vec![("__name__".into(), "q\"\\\n{},é".into()), ("b".into(), "]".into())];
        let values = [1.0, -0.0, 2.5, 5e-324, f64::MAX, f64::INFINITY, 0.1 + 0.2];
        let samples: Vec<(i64, f64)> = (-3..).zip(values).collect();
        let text = vm_json::encode(&[(labels.clone(), samples)]);
        let mut line = ExportLine::default();
        line.parse(text.as_bytes()).expect(&text);
        assert_eq!(line.labels, labels);
        assert_eq!(line.timestamps_ms, [-3, -2, -1, 0, 1, 2, 3]);
        let bits = |values: &[f64]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&line.values), bits(&values));
        for end in 0..text.trim_end().len() {
            assert!(line.parse(&text.as_bytes()[..end]).is_err(), "cut at {end}");
        }
    }

    #[test]
    fn shapes() {
        #[track_caller]
        fn check(text: &str, want: bool) {
            assert_eq!(ExportLine::default().parse(text.as_bytes()).is_ok(), want, "{text}");
        }
        check(
            r#" { "timestamps" : [ 1 , 2 ] , "metric" : { } , "values" : [ 1e3 , null ] } "#,
            true,
        );
        check(r#"{"metric":{},"values":[],"timestamps":[]}"#, true);
        check(r#"{"metric":{},"values":[1],"timestamps":[]}"#, false);
        check(r#"{"metric":{},"values":[1,],"timestamps":[1,2]}"#, false);
        check(r#"{"metric":{},"values":[1],"timestamps":[1]} x"#, false);
        check(r#"{"metric":{a},"values":[1],"timestamps":[1]}"#, false);
        check(r#"{"metric":{},"values":[1],"timestamps":[1.5]}"#, false);
        check("", false);
    }
}
