//! The rules of who halts the shell, who sizes it and what each viewer is sent.

use super::*;

const MIB: u64 = 1 << 20;

fn hub() -> Hub {
    Hub::new("session".into(), "title".into())
}

fn opening(protocol: Protocol, access: Access) -> Opening {
    Opening { protocol, access, size: Size::default(), resume: None }
}

/// A viewer that has been sent all there is.
fn viewer(hub: &mut Hub, protocol: Protocol, access: Access, now: Instant) -> u64 {
    let id = hub.attach(opening(protocol, access), now);
    send_all(hub, id);
    id
}

/// Bytes of output that a viewer is sent.
fn send_all(hub: &mut Hub, id: u64) -> u64 {
    let mut bytes = 0;
    loop {
        match hub.next(id) {
            Step::Send(frame) => {
                if let Ok(FromServer::Output(_, output)) = FromServer::parse(&frame) {
                    bytes += output.len() as u64;
                }
            }
            Step::Wait | Step::Close(_) => return bytes,
        }
    }
}

fn push(hub: &mut Hub, bytes: u64) {
    hub.push(&vec![b'x'; usize::try_from(bytes).unwrap()]);
}

fn check_room(hub: &Hub, now: Instant, expected: u64) {
    assert_eq!(hub.room(now).bytes as u64, expected.min(FRAME as u64));
}

#[test]
fn without_viewers_everything_is_read() {
    let (mut hub, now) = (hub(), Instant::now());
    push(&mut hub, 5 * MIB);
    check_room(&hub, now, u64::MAX);
}

#[test]
fn the_active_viewer_limits_reading_to_its_window() {
    let (mut hub, now) = (hub(), Instant::now());
    let id = viewer(&mut hub, Protocol::V1, Access::ReadWrite, now);
    push(&mut hub, WINDOW - 10);
    check_room(&hub, now, 10);
    push(&mut hub, 10);
    check_room(&hub, now, 0);
    assert_eq!(send_all(&mut hub, id), WINDOW);
    hub.acknowledge(id, 100);
    check_room(&hub, now, 100);
    // Neither less than before nor more than it was sent.
    hub.acknowledge(id, 50);
    check_room(&hub, now, 100);
    hub.acknowledge(id, u64::MAX);
    check_room(&hub, now, u64::MAX);
}

#[test]
fn a_client_of_ttyd_has_processed_what_its_connection_took() {
    let (mut hub, now) = (hub(), Instant::now());
    let id = viewer(&mut hub, Protocol::Ttyd, Access::ReadWrite, now);
    push(&mut hub, WINDOW);
    check_room(&hub, now, 0);
    assert!(matches!(hub.next(id), Step::Send(_)));
    check_room(&hub, now, 0);
    hub.sent(id, now);
    check_room(&hub, now, u64::MAX);
    hub.pause(id, true);
    check_room(&hub, now, 0);
    assert_eq!(hub.next(id), Step::Wait);
}

#[test]
fn a_silent_viewer_halts_the_shell_only_so_long() {
    let (mut hub, now) = (hub(), Instant::now());
    viewer(&mut hub, Protocol::V1, Access::ReadWrite, now);
    push(&mut hub, WINDOW);
    assert_eq!(hub.room(now), Room { bytes: 0, until: Some(now + PATIENCE) });
    check_room(&hub, now + PATIENCE, u64::MAX);
}

#[test]
fn what_a_lost_viewer_has_not_seen_is_kept_for_it_a_while() {
    let (mut hub, now) = (hub(), Instant::now());
    let id = viewer(&mut hub, Protocol::V1, Access::ReadWrite, now);
    push(&mut hub, 1000);
    hub.detach(id, now);
    check_room(&hub, now, u64::MAX);
    push(&mut hub, (KEPT - TAIL) as u64 - 1000);
    assert_eq!(hub.room(now), Room { bytes: 0, until: Some(now + PATIENCE) });
    check_room(&hub, now + PATIENCE, u64::MAX);
    // It comes back and finds all of it.
    let resume = Some(Resume { session: "session".into(), offset: 0 });
    let id = hub.attach(Opening { resume, ..opening(Protocol::V1, Access::ReadWrite) }, now);
    let Step::Send(frame) = hub.next(id) else { panic!("nothing to send") };
    let Ok(FromServer::Hello(hello)) = FromServer::parse(&frame) else { panic!("no hello") };
    assert_eq!((hello.offset, hello.reset), (0, false));
}

#[test]
fn a_watcher_neither_sizes_nor_halts_nor_types() {
    let (mut hub, now) = (hub(), Instant::now());
    let size = Size { columns: 9, rows: 9 };
    let id = hub.attach(Opening { size, ..opening(Protocol::V1, Access::ReadOnly) }, now);
    assert!(!hub.type_by(id));
    push(&mut hub, 5 * MIB);
    assert_eq!(hub.size(), Size::default());
    check_room(&hub, now, u64::MAX);
}

#[test]
fn who_falls_behind_is_sent_no_more_than_a_window_until_it_shows_something() {
    let (mut hub, now) = (hub(), Instant::now());
    let id = viewer(&mut hub, Protocol::V1, Access::ReadOnly, now);
    let mut sent = 0;
    for _ in 0..80 {
        push(&mut hub, 64 << 10);
        sent += send_all(&mut hub, id);
    }
    assert_eq!(sent, WINDOW);
    hub.acknowledge(id, WINDOW);
    let Step::Send(frame) = hub.next(id) else { panic!("nothing to send") };
    assert_eq!(FromServer::parse(&frame), Ok(FromServer::Resynchronised(5 * MIB - CATCH_UP)));
    assert_eq!(send_all(&mut hub, id), CATCH_UP);
}

#[test]
fn the_viewer_used_last_is_active_and_the_one_before_follows_it() {
    let (mut hub, now) = (hub(), Instant::now());
    let mut attach = |columns| {
        let size = Size { columns, rows: 5 };
        hub.attach(Opening { size, ..opening(Protocol::V1, Access::ReadWrite) }, now)
    };
    let (first, second, third) = (attach(1), attach(2), attach(3));
    assert_eq!(hub.size().columns, 3);
    assert!(hub.type_by(first));
    assert_eq!(hub.size().columns, 1);
    hub.resize(second, Size { columns: 7, rows: 5 });
    assert_eq!(hub.size().columns, 1);
    hub.detach(first, now);
    assert_eq!(hub.size().columns, 3);
    hub.detach(third, now);
    assert_eq!(hub.size().columns, 7);
}

#[test]
fn an_exit_comes_between_the_output_of_two_shells() {
    let (mut hub, now) = (hub(), Instant::now());
    let id = viewer(&mut hub, Protocol::V1, Access::ReadWrite, now);
    let exit = Exit { code: Some(0), signal: None, restarting: true };
    hub.push(b"old");
    hub.exit(exit.clone());
    hub.push(b"new");
    let frames: Vec<Vec<u8>> = std::iter::from_fn(|| match hub.next(id) {
        Step::Send(frame) => Some(frame),
        Step::Wait | Step::Close(_) => None,
    })
    .collect();
    let expected = [FromServer::Output(0, b"old"), FromServer::Exit(exit), FromServer::Output(3, b"new")];
    assert_eq!(frames, expected.map(|frame| frame.build()));
    hub.end();
    assert_eq!(hub.next(id), Step::Close(Some(1001)));
}
