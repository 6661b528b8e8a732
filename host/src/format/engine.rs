//! wasmtime's engine, set up for components that write files.

use std::{
    hash::{Hash, Hasher},
    sync::{Arc, OnceLock},
};

use wasmtime::{Config, component::Linker};

use super::{
    bindings,
    bundle::Bundles,
    imports::{self, State},
    limits::STACK,
    meters::Meters,
    policy::Policy,
    ticker::Ticker,
    turn::Turns,
    wasi,
};

/// One engine a process. Clones share it.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
    policy: Arc<Policy>,
}

struct Inner {
    engine: wasmtime::Engine,
    linker: Linker<State>,
    /// Who computes longer than a tick.
    turns: Turns,
    bundles: OnceLock<Bundles>,
    loading: Arc<Meters>,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").finish_non_exhaustive()
    }
}

impl Engine {
    /// Sets the engine up, and the thread that advances its epoch, until nobody computes any more or could.
    pub fn new() -> wasmtime::Result<Self> {
        // Recordings go on while something is compiled here.
        let engine = wasmtime::Engine::new(settings().parallel_compilation(false))?;
        let mut linker = Linker::new(&engine);
        wasi::add_to_linker(&mut linker)?;
        bindings::Plugin::add_to_linker::<_, wasmtime::component::HasSelf<_>>(
            &mut linker,
            |s: &mut State| s,
        )?;
        imports::add_append(&mut linker)?;
        let advanced = engine.clone();
        let ticker = Ticker::start(move || advanced.increment_epoch())?;
        let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
        let turns = Turns::new((cores / 2).max(1), ticker);
        let inner = Inner { engine, linker, turns, bundles: OnceLock::new(), loading: Arc::default() };
        Ok(Self { inner: Arc::new(inner), policy: Arc::default() })
    }

    /// For an engine that does nothing but compile, with all processors.
    pub(super) fn compiler() -> wasmtime::Result<wasmtime::Engine> {
        wasmtime::Engine::new(&settings())
    }

    /// The same engine, for components that an operator allows in this way.
    pub fn under(self, policy: Policy) -> Self {
        Self { policy: Arc::new(policy), ..self }
    }

    /// What the operator says of components.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// From here on writers that fail by their own fault leave a crash bundle. Once.
    pub fn keep_bundles(&self, bundles: Bundles) {
        let _ = self.inner.bundles.set(bundles);
    }

    pub(super) fn bundles(&self) -> Option<&Bundles> {
        self.inner.bundles.get()
    }

    /// What is counted of components that are being loaded, which have no counters of their own yet.
    pub fn loading(&self) -> &Arc<Meters> {
        &self.inner.loading
    }

    pub(super) fn turns(&self) -> &Turns {
        &self.inner.turns
    }

    /// wasmtime's own engine, for measuring what a call costs with the settings that the server has.
    pub fn wasmtime(&self) -> &wasmtime::Engine {
        &self.inner.engine
    }

    pub(super) fn linker(&self) -> &Linker<State> {
        &self.inner.linker
    }

    /// See [`compatibility`].
    pub(super) fn compatibility(&self) -> u64 {
        compatibility(&self.inner.engine)
    }
}

/// Stands for everything that compiled code depends on besides the component: wasmtime's version and
/// settings, and the processor's features.
pub(super) fn compatibility(engine: &wasmtime::Engine) -> u64 {
    let mut hasher = std::hash::DefaultHasher::new();
    engine.precompile_compatibility_hash().hash(&mut hasher);
    hasher.finish()
}

fn settings() -> Config {
    let mut config = Config::new();
    config
        .wasm_component_model(true)
        // No call of a writer waits for another, and concurrency makes each call dearer.
        .concurrency_support(false)
        .epoch_interruption(true)
        .max_wasm_stack(STACK as usize)
        .async_stack_size(1 << 20)
        // The same bytes on every machine.
        .cranelift_nan_canonicalization(true)
        .relaxed_simd_deterministic(true);
    config
}
