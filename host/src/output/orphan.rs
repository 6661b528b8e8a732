//! A segment that lost its writer: finds out how far it is whole, and cuts it back to that.
//!
//! The journal tells what there should be. Up to the last sync point all of it is there. What was committed after
//! it is believed commit by commit, as long as the checksums hold: a process that died left all of it, a power
//! cut any part. From the first commit that does not hold everything is cut off.
//!
//! That is right for the little that a sync interval is. Where far more than that does not hold (nothing was
//! ever synced, or the disk lost what it had promised), a hole is better than no recording, and all that is
//! there is kept and called damaged.
//!
//! Each step can be cut off and done again: files are cut and synced before the journal says so.

use std::{fmt, sync::Arc};

use rustix::io::Errno;

use super::{
    Disk,
    claim::Claim,
    durable::Durable,
    headroom,
    journal::{self, Commit, Journal, Reader, Record, Start, Void},
    line::Line,
    path::Folder,
    segment::{
        Finished, JOURNAL, NEW, Output, OutputError, Point, Role, SPOOLS, Segment, clear_up, file_name,
    },
    sidecar::MANIFEST,
    storage::{Directory, DiskFile},
    volume::Volume,
    waiting::Waiting,
};

/// Bytes read at once for a checksum.
const WINDOW: usize = 1 << 20;
/// How much longer than two sync intervals a stretch may be that a power cut can have cost.
const SLACK_US: i64 = 10_000_000;

/// A segment without a writer. Nobody else has its name while this lives.
pub struct Orphan {
    folder: Arc<Folder>,
    name: String,
    claim: Arc<Claim>,
    volume: Volume,
    /// Locked; `None`: it was never begun.
    journal: Option<Arc<dyn DiskFile>>,
    /// Samples that its writer was given, if that is known.
    given: Option<u64>,
    /// Where it is to end, as what follows is in the next segment.
    end: Option<Point>,
    /// What its journal was to begin with, by who gave it up.
    start: Option<Box<Start>>,
}

impl fmt::Debug for Orphan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Orphan").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Why an orphan can't be taken or cut back. Its files are as they were.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OrphanError {
    #[error("{0} is being recorded or repaired by a running server")]
    Owned(std::path::PathBuf),
    #[error(transparent)]
    Disk(#[from] OutputError),
}

/// What cutting back came to.
#[derive(Debug)]
pub enum Found {
    /// Nothing was recorded that can be saved; its files are gone. The start, if it was known, and the bytes of
    /// media that did not hold.
    Nothing { start: Option<Box<Start>>, lost_bytes: u64 },
    /// The main file is complete.
    Complete(Box<Complete>),
    /// It was cut back, and can be finished.
    Cut(Box<Cut>),
    /// It makes no sense, and was left as it is.
    Kept { start: Option<Box<Start>>, why: String },
}

/// A segment that was finished, but for what was left beside it.
pub struct Complete {
    pub start: Start,
    pub file: Finished,
    /// What its writer had to say of it, in JSON; empty if that is not known.
    pub summary: Vec<u8>,
    /// The last commit that is known.
    pub commit: Commit,
    remains: Remains,
}

struct Remains {
    folder: Arc<Folder>,
    spools: Vec<String>,
    name: String,
    _claim: Arc<Claim>,
    volume: Volume,
    /// Locked.
    _journal: Arc<dyn DiskFile>,
}

impl fmt::Debug for Complete {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Complete").field("file", &self.file).finish_non_exhaustive()
    }
}

impl Complete {
    /// Removes what is left beside the file, the journal last. Until then a crash leaves it to the next repair.
    pub async fn clear_up(self) -> Result<(), OrphanError> {
        let Remains { folder, spools, name, volume, .. } = self.remains;
        let path = self.file.path;
        let clear = move || clear_up(&*folder.dir, &spools, &format!("{name}.{JOURNAL}"));
        let cleared = volume.run_slow(clear).await;
        cleared.map_err(|errno| OutputError { path, what: "repair", errno }.into())
    }
}

/// A segment that ends with a commit.
#[derive(Debug)]
pub struct Cut {
    pub start: Start,
    pub segment: Segment,
    /// The commit that it ends with.
    pub commit: Commit,
    /// Bytes that were cut off, and when the last of them was written (microseconds since 1970), as far as known.
    pub lost_bytes: u64,
    pub lost_until_us: i64,
    /// Whether some of what was kept does not have the checksums that it should.
    pub damaged: bool,
}

/// A segment that is not closed.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Unclosed {
    /// Its recording; 0: not known.
    pub config_id: u64,
    /// When it began, and its number in the run.
    pub begun: (i64, u64),
    /// The final name.
    pub name: String,
}

/// The segments in a folder that are not closed: somebody writes them, or they are orphans. Those of a recording in
/// the order in which they began.
pub fn unclosed(folder: &Folder) -> Result<Vec<Unclosed>, Errno> {
    let suffix = format!(".{JOURNAL}");
    let mut found = Vec::new();
    for name in folder.dir.names()? {
        let Some(segment) = name.strip_suffix(&suffix) else { continue };
        // Others have files of that name, too. What can't be looked at is looked at again by who takes it.
        let file = folder.dir.open(&name);
        let kind = file.as_ref().map_err(|errno| *errno).and_then(|file| journal::kind(&**file));
        if kind == Ok(journal::Kind::Foreign) {
            continue;
        }
        let start = file.ok().and_then(start_of).unwrap_or_default();
        let begun = (start.epoch_us, start.segment);
        found.push(Unclosed { config_id: start.config_id, begun, name: segment.to_owned() });
    }
    found.sort_unstable();
    Ok(found)
}

/// What a journal begins with, if that can be read.
fn start_of(journal: Arc<dyn DiskFile>) -> Option<Start> {
    match Reader::open(journal).ok()??.record().ok()?? {
        Record::Start(start) => Some(*start),
        _ => None,
    }
}

impl Orphan {
    pub(super) fn new(
        folder: Arc<Folder>,
        name: String,
        claim: Arc<Claim>,
        volume: Volume,
        journal: Option<Arc<dyn DiskFile>>,
    ) -> Self {
        Self { folder, name, claim, volume, journal, given: None, end: None, start: None }
    }

    /// Takes the segment with that final name, unless somebody has it.
    pub async fn take(disk: &Disk, folder: &Arc<Folder>, name: &str) -> Result<Self, OrphanError> {
        let path = folder.path.join(name);
        let fail = |errno| OutputError { path: path.clone(), what: "take", errno };
        let claim =
            disk.claims.claim(folder, name).ok_or_else(|| OrphanError::Owned(folder.path.join(name)))?;
        let volume = disk.volumes.get(folder.id.0).map_err(|_| fail(Errno::AGAIN))?;
        let (its_folder, journal) = (folder.clone(), format!("{name}.{JOURNAL}"));
        let open = move || {
            let file = its_folder.dir.open(&journal)?;
            if !file.lock()? {
                return Ok(None);
            }
            // Its owner may have removed it while we came.
            match its_folder.dir.open(&journal)?.inode()? == file.inode()? {
                true => Ok(Some(file)),
                false => Err(Errno::NOENT),
            }
        };
        let journal = volume.run_slow(open).await.map_err(fail)?;
        let journal = journal.ok_or_else(|| OrphanError::Owned(folder.path.join(name)))?;
        Ok(Self::new(folder.clone(), name.into(), claim, volume, Some(journal)))
    }

    /// The final path.
    pub fn path(&self) -> std::path::PathBuf {
        self.folder.path.join(&self.name)
    }

    /// The final file name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Keeps in mind how many samples its writer was given.
    pub fn with_given(self, samples: u64) -> Self {
        Self { given: Some(samples), ..self }
    }

    /// Samples that its writer was given, if that is known.
    pub fn given(&self) -> Option<u64> {
        self.given
    }

    /// Keeps in mind what its journal was to begin with, whether or not the disk has taken that.
    pub fn with_start(self, start: Start) -> Self {
        Self { start: Some(Box::new(start)), ..self }
    }

    /// Keeps in mind where it is to end.
    pub fn with_end(self, end: &Point) -> Self {
        Self { given: Some(end.samples), end: Some(end.clone()), ..self }
    }

    /// The folder.
    pub fn folder(&self) -> &Arc<Folder> {
        &self.folder
    }

    /// Writes down that what comes behind the segment's end is in another one: in `next`, which is to be begun in the
    /// same folder, as far as that gets; or, if it is there and durable, `None`. Durable when this returns.
    pub async fn void(&self, next: Option<&str>) -> Result<(), OrphanError> {
        let (Some(end), Some(journal)) = (self.end.clone(), self.journal.clone()) else { return Ok(()) };
        let next = next.unwrap_or_default().to_owned();
        let write = move || write_void(journal, Void { samples: end.samples, sizes: end.sizes, next });
        let path = self.path();
        let written = self.volume.run_slow(write).await;
        written.map_err(|errno| OutputError { path, what: "cut back", errno }.into())
    }

    /// Cuts the segment back to what holds, and clears up where nothing is left to be done.
    pub async fn cut_back(self) -> Result<Found, OrphanError> {
        let volume = self.volume.clone();
        volume
            .run_long(move || {
                let path = self.path();
                cut_back(self).map_err(|errno| OutputError { path, what: "repair", errno }.into())
            })
            .await
    }
}

/// What a journal says, but for its commits.
#[derive(Debug, Default)]
struct Story {
    start: Option<Box<Start>>,
    outputs: Vec<journal::Output>,
    /// Sizes at the last sync point.
    synced: Vec<u64>,
    /// Of which it does not say that they were finished; at most one an output.
    resizes: Vec<journal::Resize>,
    resized: Vec<journal::Resized>,
    closed: bool,
    summary: Vec<u8>,
    void: Option<Void>,
    /// The last one.
    commit: Commit,
    /// Where its last record ends.
    end: u64,
}

/// How far the outputs are whole.
#[derive(Debug, Default)]
struct Whole {
    commit: Commit,
    /// When the first commit that the journal has was made, and the last one.
    first_us: Option<i64>,
    last: Commit,
    damaged: bool,
}

/// An output's file.
#[derive(Debug)]
struct OutputFile {
    name: String,
    file: Option<Arc<dyn DiskFile>>,
    role: Role,
    head: u64,
    /// Bytes behind the head.
    size: u64,
}

impl OutputFile {
    /// Whether the rest can do without it: a sidecar that somebody took away.
    fn is_spared(&self) -> bool {
        self.role == Role::Sidecar && self.file.is_none()
    }
}

fn cut_back(orphan: Orphan) -> Result<Found, Errno> {
    let Orphan { folder, name, claim, volume, journal, start: begun, .. } = orphan;
    let dir = &*folder.dir;
    let Some(journal) = journal else {
        return Ok(Found::Nothing { start: begun, lost_bytes: 0 });
    };
    let journal_name = format!("{name}.{JOURNAL}");
    let story = read_story(&journal)?;
    let Some(start) = story.start else {
        if matches!(journal::kind(&*journal)?, journal::Kind::Unknown | journal::Kind::Foreign) {
            let why = format!("{journal_name} is no journal, or one of another version");
            return Ok(Found::Kept { start: None, why });
        }
        // It is durable before there is anything else.
        let others = dir.names()?.into_iter().any(|other| {
            other.strip_prefix(&name).is_some_and(|rest| rest.starts_with('.') && rest != ".info")
        });
        if others {
            return Ok(Found::Kept { start: None, why: format!("{journal_name} has no valid beginning") });
        }
        dir.remove(&journal_name)?;
        return Ok(Found::Nothing { start: None, lost_bytes: 0 });
    };
    let mut names: Vec<String> = story.outputs.iter().map(|o| file_name(&name, &o.name)).collect();
    let roles: Option<Vec<Role>> = story.outputs.iter().map(|o| Role::parse(&o.role)).collect();
    let Some(roles) = roles else {
        let why = format!("{journal_name} has outputs of unknown roles");
        return Ok(Found::Kept { start: Some(start), why });
    };
    let spools: Vec<String> = (names.iter().zip(&roles))
        .filter(|(_, role)| **role == Role::Spool)
        .flat_map(|(name, _)| [name.clone(), format!("{name}{}", headroom::COPY)])
        .collect();

    // A spool is renamed when it is complete and durable.
    let renamed = || -> Result<bool, Errno> {
        let Ok(main) = dir.open(&name) else { return Ok(false) };
        let inode = main.inode()?;
        for (i, output) in story.outputs.iter().enumerate().filter(|(i, _)| roles[*i] == Role::Spool) {
            let its = story.resized.iter().rfind(|r| r.output == i).map_or(output.inode, |r| r.inode);
            if !dir.exists(&names[i])? && (its == inode || !start.replaces) {
                return Ok(true);
            }
        }
        Ok(false)
    };
    if story.closed || renamed()? {
        let bytes = match dir.open(&name) {
            Ok(main) => main.size()?,
            // Somebody took the finished file away.
            Err(Errno::NOENT) => 0,
            Err(errno) => return Err(errno),
        };
        dir.sync()?;
        let file = Finished { path: folder.path.join(&name), bytes };
        let remains = Remains { folder, spools, name, _claim: claim, volume, _journal: journal };
        let (start, summary, commit) = (*start, story.summary, story.commit);
        return Ok(Found::Complete(Box::new(Complete { start, file, summary, commit, remains })));
    }

    let new = format!("{name}{NEW}");
    let mut outputs = Vec::new();
    let mut named = true;
    for ((output, name), &role) in story.outputs.iter().zip(&mut names).zip(&roles) {
        let mut file = open(dir, name)?;
        if role == Role::Main && start.replaces {
            // Until it is ours by name, the file of that name is another one, which stays.
            named = file.as_ref().map(|file| file.inode()).transpose()? == Some(output.inode);
            if !named {
                name.clone_from(&new);
                file = open(dir, &new)?;
            }
        }
        let found = OutputFile { name: output.name.clone(), file, role, head: 0, size: 0 };
        outputs.push(settle(found, outputs.len(), &story.resizes, &story.resized, start.head_room)?);
    }
    let ours: Vec<String> = names.iter().cloned().chain([new]).chain(spools).collect();
    // Nothing is written to a file of which the journal does not know.
    let spools = SPOOLS.iter().filter(|spool| **spool != JOURNAL).map(|spool| file_name(&name, spool));
    let may_be_ours = spools.chain((!start.replaces).then(|| name.clone()));
    for unknown in may_be_ours.filter(|name| !names.contains(name)) {
        if let Some(file) = open(dir, &unknown)?
            && file.size()? == 0
        {
            dir.remove(&unknown)?;
        }
    }

    let void = match story.void {
        Some(void) if took_over(dir, &journal, &void)? => Some(void),
        _ => None,
    };
    let whole = how_far(&journal, &story.synced, void.as_ref(), &outputs, start.sync_ms)?;
    // A manifest is made anew, since recovering changes the file.
    let kept = |i: usize| story.outputs[i].name != MANIFEST;
    let size = |i: usize| whole.commit.outputs.get(i).filter(|_| kept(i)).map_or(0, |&(size, _)| size);
    let media = outputs.iter().enumerate().filter(|(i, _)| kept(*i));
    let voided = |i: usize, bytes: u64| match &void {
        Some(void) if void.samples == 0 => 0,
        Some(void) => bytes.min(void.sizes.get(i).copied().unwrap_or(0)),
        None => bytes,
    };
    let lost_bytes = media.map(|(i, o)| voided(i, o.size).saturating_sub(size(i))).sum();
    let unexplained = whole.last.epoch_us.saturating_sub(whole.commit.epoch_us) > tolerated_us(start.sync_ms);
    if whole.commit.samples > 0 && unexplained {
        // Cutting all that off would destroy what somebody may still save.
        let why = format!(
            "it is whole for {} of {} samples only, as if one of its files had been changed",
            whole.commit.samples, whole.last.samples
        );
        return Ok(Found::Kept { start: Some(start), why });
    }
    if whole.commit.samples == 0 {
        if whole.last.samples > 0
            && whole.last.epoch_us - whole.first_us.unwrap_or(0) > tolerated_us(start.sync_ms)
        {
            let why = "none of what it holds has the checksums that its journal says".into();
            return Ok(Found::Kept { start: Some(start), why });
        }
        clear_up(dir, &ours, &journal_name)?;
        return Ok(Found::Nothing { start: Some(start), lost_bytes });
    }

    for (i, output) in outputs.iter_mut().enumerate() {
        let file = match &output.file {
            Some(file) => file,
            // Its name was lost before anything was in it that counts.
            None => output.file.insert(dir.create(&names[i])?),
        };
        if file.size()? != output.head + size(i) {
            file.truncate(output.head + size(i))?;
        }
        file.sync()?;
    }
    for spool in names.iter().map(|name| format!("{name}{}", headroom::COPY)) {
        dir.remove(&spool)?;
    }
    dir.sync()?;
    journal.truncate(story.end)?;
    let mut journal = Journal::resume(journal, story.end);
    let commit = Commit { outputs: (0..outputs.len()).map(|i| (size(i), 0)).collect(), ..whole.commit };
    for resize in &story.resizes {
        // It is settled, and must not be once more when the head is written.
        if let Some(OutputFile { file: Some(file), head, .. }) = outputs.get(resize.output) {
            let resized = journal::Resized { output: resize.output, head: *head, inode: file.inode()? };
            journal.append(&Record::Resized(resized))?;
        }
    }
    journal.append(&Record::Cut(commit.clone()))?;
    journal.file().sync()?;

    let durable = Durable::new(folder.clone(), &name);
    durable.begin(journal);
    let mut segment_outputs = Vec::new();
    for (output, &(size, _)) in outputs.into_iter().zip(&commit.outputs) {
        let file = output.file.expect("opened or created above");
        durable.known(&output.name, file, size);
        segment_outputs.push(Output::new(&output.name, output.role, output.head, size));
    }
    let segment = Segment {
        folder,
        name,
        replaces: start.replaces,
        named,
        begun: true,
        claim,
        line: Line::new(volume),
        waiting: Waiting::default(),
        sync_ms: start.sync_ms,
        recorded: segment_outputs.len(),
        outputs: segment_outputs,
        durable: Arc::new(durable),
        journal: true,
        samples: commit.samples,
        last_ms: commit.last_ms,
        committed: commit.samples,
        hold: 0,
    };
    Ok(Found::Cut(Box::new(Cut {
        start: *start,
        segment,
        commit,
        lost_bytes,
        lost_until_us: whole.last.epoch_us,
        damaged: whole.damaged,
    })))
}

/// A file, if there is one of that name.
fn open(dir: &dyn Directory, name: &str) -> Result<Option<Arc<dyn DiskFile>>, Errno> {
    match dir.open(name) {
        Ok(file) => Ok(Some(file)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// What a power cut may have cost, in microseconds.
fn tolerated_us(sync_ms: u64) -> i64 {
    i64::try_from(sync_ms).map_or(i64::MAX, |ms| ms.saturating_mul(2000).saturating_add(SLACK_US))
}

fn read_story(journal: &Arc<dyn DiskFile>) -> Result<Story, Errno> {
    let mut story = Story::default();
    let Some(mut reader) = Reader::open(journal.clone())? else { return Ok(story) };
    while let Some(record) = reader.record()? {
        if story.start.is_none() && !matches!(record, Record::Start(_)) {
            break;
        }
        match record {
            Record::Start(start) => story.start = Some(start),
            Record::Output(output) => story.outputs.push(output),
            Record::Commit(commit) => story.commit = commit,
            Record::Summary(summary) => story.summary = summary,
            Record::Synced(sizes) => story.synced = sizes,
            Record::Cut(commit) => {
                story.synced = commit.outputs.iter().map(|&(size, _)| size).collect();
                story.commit = commit;
            }
            Record::Resize(resize) => {
                story.resizes.retain(|other| other.output != resize.output);
                story.resizes.push(resize);
            }
            Record::Resized(resized) => {
                story.resizes.retain(|resize| resize.output != resized.output);
                story.resized.push(resized);
            }
            Record::Closed => story.closed = true,
            Record::Void(void) => story.void = Some(void),
        }
    }
    story.end = reader.position();
    Ok(story)
}

/// Appends a record to the journal of a segment that nobody writes any more.
fn write_void(journal: Arc<dyn DiskFile>, void: Void) -> Result<(), Errno> {
    let Some(mut reader) = Reader::open(journal.clone())? else { return Ok(()) };
    let mut syncs = false;
    while let Some(record) = reader.record()? {
        if let Record::Start(start) = record {
            syncs = start.sync_ms > 0;
        }
    }
    // Room that was kept for closing lies behind it.
    journal.truncate(reader.position())?;
    Journal::resume(journal.clone(), reader.position()).append(&Record::Void(void))?;
    if syncs { journal.sync() } else { Ok(()) }
}

/// Whether the samples that are void are in the next segment, all of them. It may be repaired meanwhile.
fn took_over(dir: &dyn Directory, journal: &Arc<dyn DiskFile>, void: &Void) -> Result<bool, Errno> {
    if void.next.is_empty() {
        return Ok(true);
    }
    let last = read_story(journal)?.commit.samples;
    let missing = last.saturating_sub(void.samples);
    let Some(journal) = open(dir, &file_name(&void.next, JOURNAL))? else {
        // It is complete, or it never had a sample.
        return dir.exists(&void.next);
    };
    let story = read_story(&journal)?;
    let Some(start) = story.start else { return Ok(false) };
    if story.closed {
        return Ok(true);
    }
    let mut outputs = Vec::new();
    // Then its file is complete and durable.
    let mut is_renamed = false;
    let may_be_renamed = !start.replaces && dir.exists(&void.next)?;
    for (i, output) in story.outputs.iter().enumerate() {
        let Some(role) = Role::parse(&output.role) else { return Ok(false) };
        let name = file_name(&void.next, &output.name);
        let mut file = open(dir, &name)?;
        if role == Role::Main
            && start.replaces
            && file.as_ref().map(|f| f.inode()).transpose()? != Some(output.inode)
        {
            file = open(dir, &format!("{name}{NEW}"))?;
        }
        is_renamed |= may_be_renamed && role == Role::Spool && file.is_none();
        // A head that is resized is that of a segment that ends, and all of its media was synced before.
        let head = story.resized.iter().rfind(|r| r.output == i).map_or(start.head_room, |r| r.head);
        let head = if role == Role::Spool { head } else { 0 };
        let size = file.as_ref().map_or(Ok(0), |file| file.size())?.saturating_sub(head);
        outputs.push(OutputFile { name: output.name.clone(), file, role, head, size });
    }
    if is_renamed || !story.resizes.is_empty() {
        return Ok(true);
    }
    let whole = how_far(&journal, &story.synced, None, &outputs, start.sync_ms)?;
    Ok(whole.commit.samples > 0 && whole.commit.samples >= missing)
}

/// Finds out how long the head of an output is, and makes it one that is whole and, if it grew, empty.
fn settle(
    mut output: OutputFile,
    id: usize,
    resizes: &[journal::Resize],
    resized: &[journal::Resized],
    head_room: u64,
) -> Result<OutputFile, Errno> {
    output.head = if output.role == Role::Spool { head_room } else { 0 };
    let Some(file) = &output.file else { return Ok(output) };
    if let Some(done) = resized.iter().rfind(|r| r.output == id) {
        output.head = done.head;
    }
    if let Some(begun) = resizes.iter().find(|r| r.output == id) {
        output.head = headroom::settle(&**file, begun)?;
    }
    if output.role == Role::Spool {
        // Whatever a close that was cut off wrote there.
        if file.next_data(0)?.is_some_and(|data| data < output.head) {
            headroom::clear(&**file, output.head)?;
        }
    }
    output.size = file.size()?.saturating_sub(output.head);
    Ok(output)
}

/// Goes through the commits: what was synced is believed, what came later if its checksums hold.
fn how_far(
    journal: &Arc<dyn DiskFile>,
    synced: &[u64],
    void: Option<&Void>,
    outputs: &[OutputFile],
    sync_ms: u64,
) -> Result<Whole, Errno> {
    let mut whole = Whole::default();
    let Some(mut reader) = Reader::open(journal.clone())? else { return Ok(whole) };
    let fits = |commit: &Commit| {
        let mut sizes = commit.outputs.iter().enumerate();
        sizes.all(|(i, &(size, _))| {
            size == 0 || outputs.get(i).is_some_and(|o| o.is_spared() || (o.file.is_some() && o.size >= size))
        })
    };
    let mut broken = false;
    let mut largest = Commit::default();
    while let Some(record) = reader.record()? {
        let commit = match record {
            Record::Commit(commit) => commit,
            Record::Cut(commit) => {
                // What a repair left; all of it was synced.
                broken = !fits(&commit);
                (whole.last, largest) = (commit.clone(), commit.clone());
                whole.commit = commit;
                continue;
            }
            _ => continue,
        };
        if void.is_some_and(|void| !void.spares(&commit)) {
            continue;
        }
        whole.first_us.get_or_insert(commit.epoch_us);
        let is_synced = commit
            .outputs
            .iter()
            .enumerate()
            .all(|(i, &(size, _))| size <= synced.get(i).copied().unwrap_or(0));
        let fits = fits(&commit);
        broken |= !fits || (!broken && !is_synced && !holds(&whole.commit, &commit, outputs)?);
        if !broken {
            whole.commit = commit.clone();
        }
        if fits {
            largest = commit.clone();
        }
        whole.last = commit;
    }
    let tolerated = tolerated_us(sync_ms);
    let from_us = if whole.commit.samples > 0 { whole.commit.epoch_us } else { i64::MAX };
    if broken && largest.epoch_us.saturating_sub(from_us) > tolerated {
        whole.commit = largest;
        whole.damaged = true;
    }
    Ok(whole)
}

/// Whether what a commit added has the checksums that it says.
fn holds(before: &Commit, commit: &Commit, outputs: &[OutputFile]) -> Result<bool, Errno> {
    for (i, &(size, checksum)) in commit.outputs.iter().enumerate() {
        let from = before.outputs.get(i).map_or(0, |&(size, _)| size);
        if size < from {
            return Ok(false);
        }
        if size == from || outputs.get(i).is_some_and(OutputFile::is_spared) {
            continue;
        }
        let Some(OutputFile { file: Some(file), head, .. }) = outputs.get(i) else { return Ok(false) };
        let mut hasher = crc32fast::Hasher::new();
        let mut at = from;
        while at < size {
            let len = usize::try_from(size - at).map_or(WINDOW, |rest| rest.min(WINDOW));
            let mut bytes = vec![0; len];
            if file.read_at(&mut bytes, head + at)? < len {
                return Ok(false);
            }
            hasher.update(&bytes);
            at += len as u64;
        }
        if hasher.finalize() != checksum {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::{Roots, fixture::Media};

    impl Media {
        async fn segment(&self, replaces: bool) -> Segment {
            let names = std::iter::once("x".to_owned());
            Segment::claim(&self.disk, &self.folder, names, replaces).await.unwrap()
        }

        async fn take(&self) -> Found {
            Orphan::take(&self.disk, &self.folder, "x").await.unwrap().cut_back().await.unwrap()
        }

        /// Overwrites a byte behind the journal's back.
        fn damage(&self, name: &str, at: u64) {
            self.folder.dir.open(name).unwrap().write_at(&[b"?"[..].into()], at).unwrap();
        }
    }

    fn start(sync_ms: u64) -> Start {
        Start { file: "x".into(), head_room: 4096, head_align: 4096, sync_ms, ..Start::default() }
    }

    /// Three commits of four bytes, the first of them synced.
    async fn write(segment: &mut Segment, name: &str, role: Role) {
        let id = segment.create(name, role, &start(2000)).unwrap();
        for (samples, text) in [(1, "aaaa"), (2, "bbbb"), (3, "cccc")] {
            segment.append(id, [text.into()]).unwrap();
            segment.contains(samples, samples as i64 * 40);
            segment.flush().await.unwrap();
            if samples == 1 {
                segment.sync().await.unwrap();
            }
        }
    }

    #[tokio::test]
    async fn everything_that_holds_is_kept() {
        for (damaged, kept) in [(None, 3), (Some(8), 2), (Some(7), 1), (Some(1), 3)] {
            let s = Media::new();
            let mut segment = s.segment(false).await;
            write(&mut segment, "", Role::Main).await;
            drop(segment.abandon().await);
            if let Some(at) = damaged {
                s.damage("x", at);
            }
            let Found::Cut(cut) = s.take().await else { panic!("not cut") };
            assert_eq!((cut.commit.samples, cut.commit.last_ms), (kept, kept as i64 * 40), "{damaged:?}");
            assert_eq!(cut.lost_bytes, (3 - kept) * 4);
            assert!(!cut.damaged, "within what a power cut may cost");
            assert_eq!(s.read("x").len() as u64, kept * 4);
            // Done again it is the same, and it can be gone on with.
            drop(cut);
            let Found::Cut(mut cut) = s.take().await else { panic!("not cut again") };
            assert_eq!((cut.commit.samples, cut.lost_bytes), (kept, 0));
            cut.segment.append(0, ["end".into()]).unwrap();
            cut.segment.flush().await.unwrap();
            drop(cut.segment.abandon().await);
            let Found::Cut(cut) = s.take().await else { panic!("not cut again") };
            assert_eq!(cut.segment.size(0), kept * 4 + 3);
            cut.segment.finish().await.unwrap();
            assert_eq!(s.files(), ["x"]);
        }
    }

    /// A segment `x` of three commits that failed, and whose third sample is to be in `y`.
    async fn failed(s: &Media) -> Orphan {
        let mut segment = s.segment(false).await;
        let id = segment.create("", Role::Main, &start(2000)).unwrap();
        let mut point = Point::default();
        for (samples, text) in [(1, "aaaa"), (2, "bbbb"), (3, "cccc")] {
            segment.append(id, [text.into()]).unwrap();
            segment.contains(samples, samples as i64 * 40);
            segment.flush().await.unwrap();
            if samples == 2 {
                point = segment.point();
            }
        }
        // What the call that failed appended, before and after it came to the disk.
        segment.append(id, ["dd".into()]).unwrap();
        segment.flush().await.unwrap();
        segment.append(id, ["dd".into()]).unwrap();
        segment.abandon_at(&point).await
    }

    /// How many samples `x` keeps, repaired as after a crash; 0 if it goes.
    async fn kept(s: &Media) -> u64 {
        match s.take().await {
            Found::Cut(cut) => {
                assert_eq!(cut.segment.size(0), if cut.commit.samples == 3 { 14 } else { 8 });
                assert_eq!(cut.lost_bytes, 0);
                cut.commit.samples
            }
            Found::Nothing { lost_bytes: 0, .. } => 0,
            other => panic!("{other:?}"),
        }
    }

    async fn next(s: &Media, samples: u64) -> Segment {
        let mut next = Segment::claim(&s.disk, &s.folder, std::iter::once("y".into()), false).await.unwrap();
        let start = Start { file: "y".into(), ..start(2000) };
        let id = next.create("", Role::Main, &start).unwrap();
        next.append(id, ["head".into()]).unwrap();
        next.begun().await.unwrap();
        next.hold(2);
        for sample in 1..=samples {
            next.append(id, ["cccc".into()]).unwrap();
            next.contains(sample, 120);
            next.flush().await.unwrap();
        }
        next
    }

    #[tokio::test]
    async fn a_sample_that_goes_over_to_the_next_segment_is_in_one_of_both_wherever_a_crash_comes() {
        // Before it was written down, and with nothing in the next one.
        let s = Media::new();
        drop(failed(&s).await);
        assert_eq!(kept(&s).await, 3);
        let s = Media::new();
        failed(&s).await.void(Some("y")).await.unwrap();
        assert_eq!(kept(&s).await, 3, "it was not begun");
        for samples in 0..=2 {
            let s = Media::new();
            failed(&s).await.void(Some("y")).await.unwrap();
            drop(next(&s, samples).await.abandon().await);
            let other = Orphan::take(&s.disk, &s.folder, "y").await.unwrap().cut_back().await.unwrap();
            match other {
                Found::Cut(cut) => assert_eq!((samples, cut.commit.samples), (2, 2)),
                Found::Nothing { .. } => assert!(samples < 2, "it is held back until all is there"),
                other => panic!("{other:?}"),
            }
            assert_eq!(kept(&s).await, if samples == 2 { 2 } else { 3 });
        }
        // The other way round: this one is repaired first.
        let s = Media::new();
        failed(&s).await.void(Some("y")).await.unwrap();
        drop(next(&s, 2).await.abandon().await);
        assert_eq!(kept(&s).await, 2);
        // A power cut took it from the next one.
        let s = Media::new();
        failed(&s).await.void(Some("y")).await.unwrap();
        drop(next(&s, 2).await.abandon().await);
        s.damage("y", 5);
        assert_eq!(kept(&s).await, 3);
        // The next one is complete, or has gone over itself; then it is said that it is safe.
        let s = Media::new();
        let orphan = failed(&s).await;
        orphan.void(Some("y")).await.unwrap();
        next(&s, 2).await.finish().await.unwrap();
        drop(orphan);
        assert_eq!(kept(&s).await, 2);
        let s = Media::new();
        let orphan = failed(&s).await;
        orphan.void(Some("y")).await.unwrap();
        orphan.void(None).await.unwrap();
        drop(orphan);
        assert_eq!((kept(&s).await, kept(&s).await), (2, 2), "and the same again");
    }

    #[tokio::test]
    async fn a_segment_all_of_which_goes_over_is_no_more() {
        let s = Media::new();
        let mut segment = s.segment(false).await;
        let id = segment.create("", Role::Main, &start(2000)).unwrap();
        segment.append(id, ["head".into()]).unwrap();
        segment.begun().await.unwrap();
        let point = segment.point();
        segment.append(id, ["aaaa".into()]).unwrap();
        segment.contains(1, 40);
        segment.flush().await.unwrap();
        let orphan = segment.abandon_at(&point).await;
        orphan.void(None).await.unwrap();
        drop(orphan);
        assert_eq!(kept(&s).await, 0);
        assert!(s.files().is_empty());
    }

    #[tokio::test]
    async fn what_a_call_flushed_before_it_was_counted_is_counted_behind_it() {
        let s = Media::new();
        let mut segment = s.segment(false).await;
        let id = segment.create("", Role::Main, &start(2000)).unwrap();
        segment.append(id, ["aaaa".into()]).unwrap();
        segment.flush().await.unwrap();
        segment.contains(1, 40);
        segment.flush().await.unwrap();
        drop(segment.abandon().await);
        let Found::Cut(cut) = s.take().await else { panic!("not cut") };
        assert_eq!(cut.commit.samples, 1);
    }

    #[tokio::test]
    async fn what_was_closed_and_not_cleared_up_is_found_with_what_was_to_be_said() {
        for (name, role) in [("", Role::Main), ("mdat", Role::Spool)] {
            let s = Media::new();
            let mut segment = s.segment(false).await;
            write(&mut segment, name, role).await;
            if role == Role::Spool {
                segment.promote(0);
            }
            let closed = segment.close(b"{}".to_vec()).await.unwrap();
            assert_eq!(s.files(), ["x", "x.info"], "it has its name, and can be announced");
            drop(closed);
            for _ in 0..2 {
                let Found::Complete(complete) = s.take().await else { panic!("not complete") };
                assert_eq!((complete.summary.as_slice(), complete.commit.samples), (&b"{}"[..], 3));
                assert_eq!(s.files(), ["x", "x.info"], "as long as it may not have been announced");
            }
            let Found::Complete(complete) = s.take().await else { panic!("not complete") };
            complete.clear_up().await.unwrap();
            assert_eq!(s.files(), ["x"]);
        }
    }

    #[tokio::test]
    async fn a_head_that_was_begun_is_empty_again_and_the_media_is_where_it_was() {
        let s = Media::new();
        let mut segment = s.segment(false).await;
        write(&mut segment, "mdat", Role::Spool).await;
        segment.resize_head(0, 12_288).await.unwrap();
        segment.write_head(0, 5000, b"junk".to_vec()).await.unwrap();
        drop(segment.abandon().await);
        let Found::Cut(cut) = s.take().await else { panic!("not cut") };
        assert_eq!((cut.segment.head(0), cut.segment.size(0)), (12_288, 12));
        let file = s.read("x.mdat");
        assert!(file[..12_288].iter().all(|&b| b == 0));
        assert_eq!(&file[12_288..], b"aaaabbbbcccc");
    }

    #[tokio::test]
    async fn nothing_is_made_of_nothing() {
        let s = Media::new();
        let mut segment = s.segment(false).await;
        segment.create("mdat", Role::Spool, &start(2000)).unwrap();
        drop(segment.abandon().await);
        assert!(matches!(s.take().await, Found::Nothing { lost_bytes: 0, .. }));
        assert!(s.files().is_empty());
        std::fs::write(s.dir.path().join("x.info"), "RW").unwrap();
        assert!(matches!(s.take().await, Found::Nothing { .. }));
        std::fs::write(s.dir.path().join("x.info"), "RW").unwrap();
        std::fs::write(s.dir.path().join("x.mdat"), "media").unwrap();
        assert!(matches!(s.take().await, Found::Kept { .. }));
        assert_eq!(s.files(), ["x.info", "x.mdat"]);
    }

    #[tokio::test]
    async fn an_older_file_is_not_taken_for_the_one_that_was_to_replace_it() {
        let s = Media::new();
        std::fs::write(s.dir.path().join("x"), "old").unwrap();
        let mut segment = s.segment(true).await;
        let id = segment.create("", Role::Main, &start(2000)).unwrap();
        segment.append(id, ["head".into()]).unwrap();
        segment.begun().await.unwrap();
        drop(segment.abandon().await);
        assert!(matches!(s.take().await, Found::Nothing { .. }));
        assert_eq!((s.files(), s.read("x")), (vec!["x".to_owned()], b"old".to_vec()));

        let mut segment = s.segment(true).await;
        let id = segment.create("", Role::Main, &start(2000)).unwrap();
        segment.append(id, ["new".into()]).unwrap();
        segment.contains(1, 0);
        segment.begun().await.unwrap();
        drop(segment.abandon().await);
        let Found::Cut(cut) = s.take().await else { panic!("not cut") };
        cut.segment.finish().await.unwrap();
        assert_eq!((s.files(), s.read("x")), (vec!["x".to_owned()], b"new".to_vec()));
    }

    #[tokio::test]
    async fn what_is_called_like_a_journal_and_is_none_is_let_be() {
        let s = Media::new();
        for (name, text, listed) in [
            ("film.info", "<movie>", false),
            ("later.info", "RWINFO99 and more", true),
            ("begun.info", "RWIN", true),
            ("empty.info", "", true),
        ] {
            std::fs::write(s.dir.path().join(name), text).unwrap();
            let segment = name.strip_suffix(".info").unwrap();
            let found = unclosed(&s.folder).unwrap();
            assert_eq!(found.iter().any(|one| one.name == segment), listed, "{name}");
            let orphan = Orphan::take(&s.disk, &s.folder, segment).await.unwrap();
            let found = orphan.cut_back().await.unwrap();
            let kept = matches!(found, Found::Kept { .. });
            assert_eq!(s.files().contains(&name.to_owned()), kept);
            assert_eq!(kept, text.len() > 4, "{name}");
        }
    }

    #[tokio::test]
    async fn what_no_power_cut_explains_is_not_cut_off() {
        let s = Media::new();
        let mut segment = s.segment(false).await;
        let mdat = segment.create("mdat", Role::Spool, &start(1)).unwrap();
        let track = segment.create("track1", Role::Spool, &start(1)).unwrap();
        for samples in 1..=2 {
            segment.append(mdat, ["media".into()]).unwrap();
            segment.append(track, ["index".into()]).unwrap();
            segment.contains(samples, 0);
            segment.sync().await.unwrap();
        }
        drop(segment.abandon().await);
        // The second commit, made an hour later than it was.
        let file = s.folder.dir.open("x.info").unwrap();
        let mut reader = Reader::open(file.clone()).unwrap().unwrap();
        let mut records: Vec<Record> = std::iter::from_fn(|| reader.record().unwrap()).collect();
        let last =
            records.iter_mut().rev().find_map(|r| if let Record::Commit(c) = r { Some(c) } else { None });
        last.unwrap().epoch_us += 3_600_000_000;
        let mut bytes = journal::MAGIC.to_vec();
        records.iter().for_each(|record| record.encode(&mut bytes));
        file.write_at(&[bytes.into()], 0).unwrap();
        // And a file that somebody emptied.
        s.folder.dir.open("x.track1").unwrap().truncate(4096 + 5).unwrap();
        let before = s.read("x.mdat");
        assert!(matches!(s.take().await, Found::Kept { .. }));
        assert_eq!(s.read("x.mdat"), before);
    }

    #[tokio::test]
    async fn an_orphan_has_one_owner() {
        let s = Media::new();
        let mut segment = s.segment(false).await;
        write(&mut segment, "", Role::Main).await;
        let owned = |result| matches!(result, Err(OrphanError::Owned(_)));
        assert!(owned(Orphan::take(&s.disk, &s.folder, "x").await));
        // As another process sees it.
        let other = Disk::new(Roots::open(s.dir.path(), &[]).unwrap(), None);
        let folder = other.roots.resolve("x").unwrap().folder;
        assert!(owned(Orphan::take(&other, &folder, "x").await));
        drop(segment.abandon().await);
        Orphan::take(&other, &folder, "x").await.unwrap();
    }
}
