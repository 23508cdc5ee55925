//! How many steps of a run are taken: all, or as many as `TIDEGATE_SIM_STEPS` says, so that a
//! failing seed can be cut short.

/// What is left.
pub struct Steps(Option<usize>);

impl Steps {
    pub fn new() -> Self {
        let text = std::env::var("TIDEGATE_SIM_STEPS").ok();
        Self(text.map(|text| text.parse().expect("TIDEGATE_SIM_STEPS is a number")))
    }

    /// Whether one more step is taken.
    pub fn take(&mut self) -> bool {
        match &mut self.0 {
            None => true,
            Some(0) => false,
            Some(left) => {
                *left -= 1;
                true
            }
        }
    }
}
