//! A valid component of another world: it greets, and is no format.
//!
//! The host must refuse to load it, and say which interface it lacks.

#[cfg(target_arch = "wasm32")]
mod other {
    wit_bindgen::generate!({
        inline: "package other:place; world greeter { export greet: func() -> string; }",
    });

    struct Other;

    impl Guest for Other {
        fn greet() -> String {
            "not a format".into()
        }
    }

    export!(Other);
}
