//! The built-in format `ts`, which panics where a track's property `trap` says (see [`Order`]).
//!
//! The host must lose no sample, wherever that is: those that the file does not keep are in the next one.
//!
//! [`Order`]: reelwright_test_components::Order

reelwright_sdk::export!(reelwright_test_components::Trapping<reelwright_ts::Ts>, recovery);
