//! Which series of a block satisfy all matchers, which names and values they have. The rules are
//! those of `node/select/matching.rs`.

use roaring::RoaringBitmap;

use super::directory::NameEntry;
use super::format::BlockFault;
use super::reader::{BlockReader, BlockSource};
use crate::model::matcher::Matcher;
use crate::model::series::TenantId;
use crate::node::index::{Condition, Test};

/// Why there is no selection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BlockSelectFault {
    /// A regular expression does not compile.
    BadRegex(String),
    /// The block cannot be read.
    Block(BlockFault),
}

impl From<BlockFault> for BlockSelectFault {
    fn from(fault: BlockFault) -> Self {
        Self::Block(fault)
    }
}

impl<S: BlockSource> BlockReader<'_, S> {
    /// The series of `tenant` that satisfy all of `matchers`.
    pub async fn select(
        &self,
        tenant: TenantId,
        matchers: &[Matcher],
    ) -> Result<RoaringBitmap, BlockSelectFault> {
        let compiled: Result<Vec<_>, _> = matchers.iter().map(Condition::compile).collect();
        let mut conditions = compiled.map_err(BlockSelectFault::BadRegex)?;
        // What narrows most for the least work comes first.
        conditions.sort_by_key(|condition| {
            let is_regex = matches!(condition.test, Test::Regex(_));
            u32::from(is_regex) * 2 + u32::from(condition.invert || condition.matches_empty)
        });
        let mut selected = RoaringBitmap::new();
        selected.insert_range(self.index.directory().series_of(tenant));
        for condition in &conditions {
            if selected.is_empty() {
                break;
            }
            self.narrow(tenant, condition, &mut selected).await?;
        }
        Ok(selected)
    }

    async fn narrow(
        &self,
        tenant: TenantId,
        condition: &Condition,
        selected: &mut RoaringBitmap,
    ) -> Result<(), BlockFault> {
        let Some(name) = self.index.directory().name(tenant, &condition.name) else {
            if condition.matches_empty == condition.invert {
                selected.clear();
            }
            return Ok(());
        };
        let hits = self.hits(name, condition).await?;
        match (condition.invert, condition.matches_empty) {
            (false, false) => *selected &= hits,
            (false, true) => *selected -= self.having(name).await? - hits,
            (true, false) => *selected -= hits,
            (true, true) => {
                *selected &= self.having(name).await?;
                *selected -= hits;
            }
        }
        Ok(())
    }

    /// The series that have the label with a value that passes the test.
    async fn hits(
        &self,
        name: &NameEntry,
        condition: &Condition,
    ) -> Result<RoaringBitmap, BlockFault> {
        let mut hits = RoaringBitmap::new();
        match &condition.test {
            Test::All => hits = self.having(name).await?,
            Test::Values(values) => {
                for value in values {
                    let page = name.pages.partition_point(|page| *page.first_value <= **value);
                    let Some(page) = page.checked_sub(1) else { continue };
                    let page = &name.pages[page];
                    let bytes = self.source.page(page.page).await?;
                    let found = page.view(&bytes).and_then(|view| view.find(value));
                    if let Some(postings) = found.map_err(|_| page.malformed())? {
                        self.add_postings(postings, &mut hits).await?;
                    }
                }
            }
            test @ Test::Regex(_) => {
                // The values that can match lie between the literal prefix and what follows it.
                let prefix = &*condition.prefix;
                let first = name.pages.partition_point(|page| &*page.first_value <= prefix);
                for page in &name.pages[first.saturating_sub(1)..] {
                    let beyond = |value: &[u8]| value > prefix && !value.starts_with(prefix);
                    if beyond(&page.first_value) {
                        break;
                    }
                    let bytes = self.source.page(page.page).await?;
                    let malformed = |_| page.malformed();
                    let mut pairs = page.view(&bytes).map_err(malformed)?.walk();
                    while let Some(pair) = pairs.next().map_err(malformed)? {
                        if pair.value.starts_with(prefix) && test.matches(pair.value) {
                            self.add_postings(pair.postings, &mut hits).await?;
                        }
                    }
                    self.source.yield_if_needed().await;
                }
            }
        }
        Ok(hits)
    }

    /// The label names of the selected series, sorted.
    pub async fn label_names(
        &self,
        tenant: TenantId,
        selected: &RoaringBitmap,
    ) -> Result<Vec<Box<[u8]>>, BlockFault> {
        let mut names = Vec::new();
        for name in self.index.directory().names_of(tenant) {
            if !self.having(name).await?.is_disjoint(selected) {
                names.push(name.name.clone());
            }
            self.source.yield_if_needed().await;
        }
        Ok(names)
    }

    /// The values of a label of the selected series, sorted, given out page by page.
    pub async fn label_values(
        &self,
        tenant: TenantId,
        name: &[u8],
        selected: &RoaringBitmap,
    ) -> Result<Vec<Box<[u8]>>, BlockFault> {
        let mut values = Vec::new();
        let Some(name) = self.index.directory().name(tenant, name) else { return Ok(values) };
        for page in &name.pages {
            let bytes = self.source.page(page.page).await?;
            let malformed = |_| page.malformed();
            let mut pairs = page.view(&bytes).map_err(malformed)?.walk();
            while let Some(pair) = pairs.next().map_err(malformed)? {
                let mut set = RoaringBitmap::new();
                self.add_postings(pair.postings, &mut set).await?;
                if !set.is_disjoint(selected) {
                    values.push(pair.value.into());
                }
            }
            self.source.yield_if_needed().await;
        }
        Ok(values)
    }
}
