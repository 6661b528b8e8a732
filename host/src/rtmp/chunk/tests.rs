use bytes::{Buf, BytesMut};
use proptest::{prelude::*, sample::Index};

use super::*;
use crate::rtmp::{Limits, Output};

fn message(chunk_stream: u32, message_type: u8, timestamp_ms: u32, payload: &[u8]) -> RawMessage {
    let payload = Bytes::copy_from_slice(payload);
    RawMessage { chunk_stream, message_stream: 1, message_type, timestamp_ms, payload }
}

fn read_all(reader: &mut ChunkReader, input: &[u8]) -> Result<Vec<RawMessage>, Error> {
    let mut input = BytesMut::from(input);
    let mut messages = Vec::new();
    while let Some(message) = reader.read(&mut input)? {
        messages.push(message);
    }
    assert!(input.len() < 18, "{} bytes were left", input.len());
    Ok(messages)
}

/// Reads bytes that come in pieces, each as long as the next of `steps`.
fn read_in_steps(input: &[u8], steps: &[usize]) -> Result<Vec<RawMessage>, Error> {
    let mut reader = ChunkReader::new(Limits::default());
    let mut steps = steps.iter().cycle();
    let (mut pending, mut rest, mut messages) = (BytesMut::new(), input, Vec::new());
    while !rest.is_empty() {
        let (step, after) = rest.split_at(rest.len().min(*steps.next().unwrap()));
        pending.extend_from_slice(step);
        rest = after;
        while let Some(message) = reader.read(&mut pending)? {
            messages.push(message);
        }
    }
    assert!(pending.is_empty());
    Ok(messages)
}

fn drain(out: &mut Output) -> Vec<u8> {
    out.copy_to_bytes(out.remaining()).to_vec()
}

fn read(input: &[u8]) -> Result<Vec<RawMessage>, Error> {
    read_all(&mut ChunkReader::new(Limits::default()), input)
}

/// Header type 0.
fn head(chunk_stream: u8, time: u32, length: u32, message_type: u8) -> Vec<u8> {
    let time = time.to_be_bytes();
    let length = length.to_be_bytes();
    [&[chunk_stream], &time[1..], &length[1..], &[message_type, 1, 0, 0, 0]].concat()
}

#[test]
fn the_examples_of_the_standard() {
    // Section 5.3.2.1: four messages of 32 bytes, 20 ms apart, with headers of type 0, 2, 3 and 3.
    let mut bytes = head(3, 1000, 32, 8);
    bytes.extend_from_slice(&[1; 32]);
    bytes.extend_from_slice(&[0x83, 0, 0, 20]);
    bytes.extend_from_slice(&[2; 32]);
    bytes.push(0xc3);
    bytes.extend_from_slice(&[3; 32]);
    bytes.push(0xc3);
    bytes.extend_from_slice(&[4; 32]);
    let expected: Vec<_> = (0..4u8).map(|i| message(3, 8, 1000 + 20 * u32::from(i), &[i + 1; 32])).collect();
    assert_eq!(read(&bytes).unwrap(), expected);
    let mut out = Output::default();
    let mut writer = ChunkWriter::default();
    expected.into_iter().for_each(|message| writer.write(message, &mut out));
    assert_eq!(drain(&mut out), bytes);

    // Section 5.3.2.2: 307 bytes in three chunks.
    let payload: Vec<u8> = (0..307).map(|i| i as u8).collect();
    let bytes =
        [&head(4, 1000, 307, 9)[..], &payload[..128], &[0xc4], &payload[128..256], &[0xc4], &payload[256..]]
            .concat();
    let expected = message(4, 9, 1000, &payload);
    assert_eq!(read(&bytes).unwrap(), std::slice::from_ref(&expected));
    ChunkWriter::default().write(expected, &mut out);
    assert_eq!(drain(&mut out), bytes);
}

#[test]
fn basic_headers_of_all_sizes() {
    for (chunk_stream, bytes) in [
        (2, &[0x02][..]),
        (63, &[0x3f]),
        (64, &[0x00, 0]),
        (319, &[0x00, 255]),
        (320, &[0x01, 0, 1]),
        (65_599, &[0x01, 255, 255]),
    ] {
        let mut out = Output::default();
        let expected = message(chunk_stream, 8, 5, b"x");
        ChunkWriter::default().write(expected.clone(), &mut out);
        let written = drain(&mut out);
        assert_eq!(written[..bytes.len()], *bytes);
        assert_eq!(read(&written).unwrap(), [expected]);
    }
    // Three bytes for an id that two or one could say.
    let bytes = [&[0x01, 0, 0][..], &head(0, 5, 1, 8)[1..], b"x"].concat();
    assert_eq!(read(&bytes).unwrap()[0].chunk_stream, 64);
}

#[test]
fn type_3_repeats_the_delta_and_after_type_0_the_timestamp() {
    // Section 5.3.1.2.4, and what FFmpeg means by it.
    let bytes = [&head(4, 23, 1, 8)[..], b"a\xc4b\xc4c", b"\x84\0\0\x15d\xc4e"].concat();
    let times: Vec<_> = read(&bytes).unwrap().iter().map(|m| m.timestamp_ms).collect();
    assert_eq!(times, [23, 46, 69, 90, 111]);
}

#[test]
fn extended_timestamps_repeated_in_type_3_or_not() {
    let payload: Vec<u8> = (0..300).map(|i| i as u8).collect();
    for time in [0xff_ffff, 0x0100_0000, 0xffff_fffe] {
        let first = [&head(6, 0xff_ffff, 300, 9)[..], &u32::to_be_bytes(time), &payload[..128]].concat();
        // Section 5.3.1.3 repeats it in each chunk.
        let repeated = [
            &first[..],
            &[0xc6],
            &u32::to_be_bytes(time),
            &payload[128..256],
            &[0xc6],
            &u32::to_be_bytes(time),
            &payload[256..],
        ]
        .concat();
        let left_out = [&first[..], &[0xc6], &payload[128..256], &[0xc6], &payload[256..]].concat();
        let expected = [message(6, 9, time, &payload)];
        for bytes in [&repeated, &left_out] {
            for step in [1, 2, 3, 5, 131, 1000] {
                assert_eq!(read_in_steps(bytes, &[step]).unwrap(), expected, "{time:#x}, steps of {step}");
            }
        }
        let mut out = Output::default();
        ChunkWriter::default().write(expected[0].clone(), &mut out);
        assert_eq!(drain(&mut out), repeated);
    }
}

#[test]
fn the_end_of_a_message_does_not_wait_for_an_extended_timestamp() {
    let payload = [7; 130];
    let bytes = [&head(6, 0xff_ffff, 130, 9)[..], &[1, 0, 0, 0], &payload[..128], &[0xc6, 7, 7]].concat();
    assert_eq!(read(&bytes).unwrap(), [message(6, 9, 0x0100_0000, &payload)]);
}

#[test]
fn set_chunk_size_holds_from_the_next_chunk_on() {
    let long = [9; 200];
    let bytes = [
        &head(4, 0, 200, 8)[..],
        &long[..128],
        &head(2, 0, 4, 1),
        &[0, 0, 0, 50],
        &[0xc4],
        &long[..50],
        &[0xc4],
        &long[..22],
    ]
    .concat();
    let messages = read(&bytes).unwrap();
    assert_eq!(messages[1], message(4, 8, 0, &long));
    let set = |size: u32| read(&[&head(2, 0, 4, 1)[..], &size.to_be_bytes()].concat());
    assert_eq!(set(0), Err(Error::ChunkSize(0)));
    assert_eq!(set(0x8000_0000), Err(Error::ChunkSize(0x8000_0000)));
    assert!(set(0x7fff_ffff).is_ok());
    assert_eq!(read(&[&head(2, 0, 3, 1)[..], &[0; 3]].concat()), Err(Error::Control(3)));
}

#[test]
fn abort_drops_the_message_in_progress() {
    let bytes = [
        &head(4, 0, 200, 8)[..],
        &[1; 128],
        &head(2, 0, 4, 2),
        &[0, 0, 0, 4],
        &head(2, 0, 4, 2), // again, and of a stream that is not there
        &[0, 0, 0, 4],
        &head(2, 0, 4, 2),
        &[0, 0, 0, 99],
        &[0xc4], // the next message, like the one that was dropped
        &[2; 128],
        &[0xc4],
        &[2; 72],
    ]
    .concat();
    let messages = read(&bytes).unwrap();
    assert_eq!(messages.last(), Some(&message(4, 8, 0, &[2; 200])));
    assert_eq!(messages.len(), 4);
}

#[test]
fn what_was_aborted_takes_no_memory() {
    let mut reader = ChunkReader::new(Limits::default());
    let begin = [&head(4, 0, 8 << 20, 9)[..], &[0; 128], &head(2, 0, 4, 2), &[0, 0, 0, 4]].concat();
    for _ in 0..1000 {
        assert_eq!(read_all(&mut reader, &begin).unwrap().len(), 1);
    }
}

#[test]
fn hostile_headers_are_refused() {
    // A message of 16 MB.
    let bytes = head(4, 0, 0xff_ffff, 9);
    assert_eq!(read(&bytes), Err(Error::MessageLength { length: 0xff_ffff, limit: 8 << 20 }));
    // A first chunk that refers to one before.
    assert_eq!(read(&[0xc4]), Err(Error::NoHeader { chunk_stream: 4, fmt: 3 }));
    assert_eq!(read(&[0x84, 0, 0, 1]), Err(Error::NoHeader { chunk_stream: 4, fmt: 2 }));
    // A message in the middle of another.
    let bytes = [&head(4, 0, 200, 8)[..], &[0; 128], &head(4, 0, 10, 8)].concat();
    assert_eq!(read(&bytes), Err(Error::Unfinished { chunk_stream: 4, missing: 72 }));
    // More chunk streams than 64.
    let bytes: Vec<u8> = (0..65).flat_map(|i| [&[0, i][..], &head(0, 0, 1, 8)[1..], b"x"].concat()).collect();
    assert_eq!(read(&bytes), Err(Error::ChunkStreams { limit: 64 }));
}

#[test]
fn unfinished_messages_are_bounded_by_the_memory_they_take() {
    let mut reader = ChunkReader::new(Limits { chunk_streams: 100, ..Limits::default() });
    let mut begin = |chunk_stream: u8| {
        let bytes = [&[0, chunk_stream][..], &head(0, 0, 8 << 20, 9)[1..], &[0; 128]].concat();
        read_all(&mut reader, &bytes)
    };
    // Each announces 8 MiB, sends 128 bytes, and gets 256 KiB.
    for chunk_stream in 0..64 {
        assert_eq!(begin(chunk_stream), Ok(vec![]));
    }
    assert_eq!(begin(64), Err(Error::BytesInProgress { limit: 16 << 20 }));
}

#[test]
fn the_largest_message_takes_exactly_its_size() {
    let mut out = Output::default();
    let mut writer = ChunkWriter::default();
    let expected = message(6, 9, 0, &vec![5; 8 << 20]);
    writer.write(expected.clone(), &mut out);
    let messages = read_in_steps(&drain(&mut out), &[64 << 10]).unwrap();
    assert_eq!(messages, [expected]);
    let [RawMessage { payload, .. }] = messages.try_into().unwrap();
    assert_eq!(Vec::from(payload).capacity(), 8 << 20);
}

#[test]
fn a_message_that_is_there_is_not_copied() {
    // In three chunks, whose headers are taken out in place, behind one that is whole.
    let payload: Vec<u8> = (0..307).map(|i| i as u8).collect();
    let bytes = [
        &head(5, 0, 3, 8)[..],
        &[1, 2, 3],
        &head(4, 1000, 307, 9),
        &payload[..128],
        &[0xc4],
        &payload[128..256],
        &[0xc4],
        &payload[256..],
        &[0xc4],
    ];
    let mut input = BytesMut::from(&bytes.concat()[..]);
    let memory = input.as_ptr_range();
    let mut reader = ChunkReader::new(Limits::default());
    for expected in [&[1, 2, 3], &payload[..]] {
        let message = reader.read(&mut input).unwrap().unwrap();
        assert_eq!(message.payload, expected);
        assert!(memory.contains(&message.payload.as_ptr()));
    }
    assert_eq!(reader.read(&mut input).unwrap(), None);
}

fn messages() -> impl Strategy<Value = Vec<RawMessage>> {
    let time = prop_oneof![0u32..200, 0xff_fff0u32..0x100_0010, any::<u32>()];
    let payload = prop_oneof![4 => 0usize..300, 1 => 300usize..5000];
    let one =
        (prop::sample::select(vec![3u32, 4, 63, 64, 400]), 0u32..2, 8u8..10, time, payload, any::<u8>());
    let one = one.prop_map(|(chunk_stream, message_stream, message_type, timestamp_ms, length, seed)| {
        let payload = (0..length).map(|i| (i as u8).wrapping_mul(31) ^ seed).collect::<Vec<_>>().into();
        RawMessage { chunk_stream, message_stream, message_type, timestamp_ms, payload }
    });
    prop::collection::vec(one, 0..20)
}

/// Messages of different chunk streams, interleaved chunk by chunk, with headers of type 0 and 3 only.
fn interleave(messages: &[RawMessage], picks: &[Index], repeat: bool) -> (Vec<u8>, Vec<RawMessage>) {
    let mut waiting: Vec<Vec<&RawMessage>> = Vec::new();
    for message in messages {
        match waiting.iter_mut().find(|queue| queue[0].chunk_stream == message.chunk_stream) {
            Some(queue) => queue.push(message),
            None => waiting.push(vec![message]),
        }
    }
    let mut sent = vec![0; waiting.len()];
    let (mut bytes, mut done) = (Vec::new(), Vec::new());
    let mut picks = picks.iter().cycle();
    while !waiting.is_empty() {
        let at = picks.next().unwrap().index(waiting.len());
        let message = waiting[at][0];
        let fmt = if sent[at] == 0 { 0 } else { 0xc0 };
        match message.chunk_stream {
            id @ ..64 => bytes.push(fmt | id as u8),
            id @ ..320 => bytes.extend_from_slice(&[fmt, (id - 64) as u8]),
            id => bytes.extend_from_slice(&[fmt | 1, (id - 64) as u8, ((id - 64) >> 8) as u8]),
        }
        if fmt == 0 {
            let time = message.timestamp_ms.min(0xff_ffff);
            let head = head(0, time, message.payload.len() as u32, message.message_type);
            bytes.extend_from_slice(&head[1..8]);
            bytes.extend_from_slice(&message.message_stream.to_le_bytes());
        }
        if message.timestamp_ms >= 0xff_ffff && (fmt == 0 || repeat) {
            bytes.extend_from_slice(&message.timestamp_ms.to_be_bytes());
        }
        let end = message.payload.len().min(sent[at] + 128);
        bytes.extend_from_slice(&message.payload[sent[at]..end]);
        sent[at] = end;
        if end == message.payload.len() {
            done.push(waiting[at].remove(0).clone());
            sent[at] = 0;
            if waiting[at].is_empty() {
                waiting.remove(at);
                sent.remove(at);
            }
        }
    }
    (bytes, done)
}

proptest! {
    #[test]
    fn round_trip(
        messages in messages(),
        chunk_size in prop_oneof![1u32..300, Just(65_536)],
        steps in prop::collection::vec(1usize..700, 1..8),
    ) {
        let mut out = Output::default();
        let mut writer = ChunkWriter::default();
        let set = message(2, 1, 0, &chunk_size.to_be_bytes());
        writer.write(set.clone(), &mut out);
        writer.set_chunk_size(chunk_size);
        messages.iter().for_each(|message| writer.write(message.clone(), &mut out));
        let read = read_in_steps(&drain(&mut out), &steps).unwrap();
        prop_assert_eq!(&read[0], &set);
        prop_assert_eq!(&read[1..], &messages[..]);
    }

    #[test]
    fn interleaved_round_trip(
        messages in messages(),
        picks in prop::collection::vec(any::<Index>(), 1..30),
        steps in prop::collection::vec(1usize..700, 1..8),
        repeat: bool,
    ) {
        let (bytes, expected) = interleave(&messages, &picks, repeat);
        prop_assert_eq!(read_in_steps(&bytes, &steps).unwrap(), expected);
    }

    #[test]
    fn nothing_panics(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        let _ = read_all(&mut ChunkReader::new(Limits::default()), &bytes);
    }
}
