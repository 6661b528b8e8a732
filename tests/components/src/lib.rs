//! Components that misbehave, each an example of this crate, for the tests of the component host.
