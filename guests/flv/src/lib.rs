use reelwright_sdk::*;
struct Raw { out: Output }
impl Writer for Raw {
    fn describe() -> Manifest { Manifest::new("raw", "0.1.0", "raw", "application/octet-stream") }
    fn open(_: Start) -> Result<Self, Error> { Ok(Raw { out: host::create("", "main")? }) }
    fn write(&mut self, samples: &[Sample], _: &[u8]) -> Result<u64, Error> {
        let mut gather = Gather::new();
        for s in samples { gather.payload(s, 0, s.size); }
        gather.append_to(&self.out)?;
        Ok(samples.last().map_or(0, |s| s.seq + 1))
    }
    fn finish(self, _: End) -> Result<Summary, Error> { Ok(Summary::default()) }
}
impl Recover for Raw { fn recover(_: Start, _: Vec<String>) -> Result<Summary, Error> { Ok(Summary::default()) } }
reelwright_sdk::export!(Raw, recovery);
