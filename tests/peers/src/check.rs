//! Whether the files hold what was sent. Speed with a lost frame is void.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::ensure;

use super::{plan::Cell, report::Sent, servers::Kind};

/// Most that a tag may be late at the sender for a run to count: it is the load that is late then.
const LATE_MS: u64 = 500;
/// Files whose frames are compared.
const COMPARED: usize = 2;

/// Why a run does not count.
pub(super) fn fault(
    cell: &Cell,
    kind: Kind,
    sent: &Sent,
    files: &[PathBuf],
    folder: &Path,
) -> anyhow::Result<Option<String>> {
    if files.len() != cell.streams {
        return Ok(Some(format!("{} files of {} streams", files.len(), cell.streams)));
    }
    if cell.is_paced && sent.worst_ms > LATE_MS {
        return Ok(Some(format!("the sender was {} ms late", sent.worst_ms)));
    }
    if kind == Kind::Floor {
        let bytes: u64 = files.iter().map(|file| fs::metadata(file).map_or(0, |file| file.len())).sum();
        // Handshake and commands are not in the files.
        let missing = sent.bytes.saturating_sub(bytes + 8192 * cell.streams as u64);
        return Ok((missing > 0).then(|| format!("{missing} bytes are missing")));
    }
    for file in files.iter().step_by((files.len() / COMPARED).max(1)).take(COMPARED) {
        let found = frames(file)?;
        // What all recorders of a cell have to have; the first to come says what that is.
        let known = folder.join("frames").join(cell.name.replace([' ', '/'], "-"));
        if !known.exists() {
            fs::write(&known, &found)?;
        }
        let expected = fs::read_to_string(&known)?;
        if found != expected {
            let file = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
            return Ok(Some(format!("{file} has other frames: {found:?}, not {expected:?}")));
        }
    }
    Ok(None)
}

/// Hashes over all pictures and all sound, whatever container they are in: NAL units without parameter sets and
/// delimiters, raw AAC.
fn frames(file: &Path) -> anyhow::Result<String> {
    let read = |map: &str, filters: &[&str]| {
        let mut ffmpeg = Command::new("ffmpeg");
        ffmpeg.args(["-nostdin", "-v", "error", "-i"]).arg(file).args(["-map", map, "-c", "copy"]);
        let output = ffmpeg.args(filters).args(["-f", "streamhash", "-hash", "md5", "-"]).output()?;
        ensure!(output.status.success(), "{}: {}", file.display(), String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let transport = file.extension().is_some_and(|extension| extension == "ts");
    let units = if transport { "" } else { "h264_mp4toannexb," };
    let units = format!("{units}filter_units=remove_types=7-9");
    let sound: &[&str] = if transport { &["-bsf:a", "aac_adtstoasc"] } else { &[] };
    Ok(format!("{} {}", read("0:v", &["-bsf:v", &units])?, read("0:a", sound)?))
}
