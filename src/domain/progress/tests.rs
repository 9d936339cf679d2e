//! Moves and rows, as tables.

use super::*;

/// Steps a, b, c, …: `!` has checks, `#` has checks and cannot be skipped; and an extra step beside the chain.
fn ledger(kinds: &str) -> Ledger {
    let count = kinds.len();
    let name = |index: usize| ((b'a' + index as u8) as char).to_string();
    let mut steps: Vec<StepRules> = kinds
        .bytes()
        .enumerate()
        .map(|(index, kind)| StepRules {
            id: name(index),
            title: name(index).to_uppercase(),
            next: (index + 1 < count).then(|| name(index + 1)),
            previous: index.checked_sub(1).map(name),
            unlock: None,
            has_checks: kind != b'.',
            can_skip: kind != b'#',
        })
        .collect();
    steps.push(StepRules { id: "extra".into(), title: "Extra".into(), next: None, ..steps[0].clone() });
    Ledger::new(steps, Vec::new())
}

fn locked(title: &str, reason: &str) -> Refusal {
    Refusal::StepLocked { title: title.into(), reason: reason.into() }
}

fn goto(step: &str) -> Action {
    Action::Goto(step.into())
}

fn moved(target: &str, completes: bool, skips: bool) -> Result<Move, Refusal> {
    Ok(Move { target: Some(target.to_owned()).filter(|it| !it.is_empty()), completes, skips })
}

#[test]
fn the_table_of_moves_holds() {
    let with = |kinds: &str, completed: &[&str]| {
        let mut ledger = ledger(kinds);
        for step in completed {
            ledger.complete(step, "t");
        }
        ledger
    };
    let check = |ledger: &Ledger, current: &str, action: Action, expected: Result<Move, Refusal>| {
        assert_eq!(ledger.decide(current, &action, true), expected, "{current} {action:?}");
    };
    // Without checks, going on completes.
    let plain = with("...", &[]);
    check(&plain, "a", Action::Next, moved("b", true, false));
    check(&plain, "a", Action::Skip, moved("b", true, false));
    check(&plain, "c", Action::Next, moved("", true, false));
    check(&plain, "a", goto("c"), moved("c", true, false));
    check(&plain, "c", goto("a"), moved("a", false, false));
    check(&plain, "b", Action::Previous, moved("a", false, false));
    check(&plain, "a", Action::Previous, Err(Refusal::NoPreviousStep));
    check(&plain, "a", goto("z"), Err(Refusal::NoSuchStep("z".into())));
    check(&plain, "z", Action::Next, Err(Refusal::NoSuchStep("z".into())));
    // With checks, passing completes, or skipping leads on.
    let red = with("!!#", &[]);
    check(&red, "a", Action::Next, Err(Refusal::ChecksFailing));
    check(&red, "a", Action::Skip, moved("b", false, true));
    check(&red, "a", goto("b"), Err(locked("B", "complete or skip \"A\" first")));
    check(&red, "a", goto("c"), Err(locked("C", "complete or skip \"A\" first")));
    check(&red, "a", goto("a"), moved("a", false, false));
    check(&red, "c", Action::Skip, Err(Refusal::SkipForbidden("C".into())));
    check(&red, "a", goto("extra"), moved("extra", false, false));
    let green = with("!!#", &["a"]);
    check(&green, "a", Action::Next, moved("b", false, false));
    check(&green, "a", Action::Skip, moved("b", false, false));
    check(&green, "a", goto("c"), Err(locked("C", "complete or skip \"B\" first")));
    check(&with("!!#", &["c"]), "c", Action::Next, moved("", false, false));
}

#[test]
fn an_instructor_is_not_bound() {
    let red = ledger("!##");
    assert_eq!(red.decide("a", &Action::Next, false), moved("b", false, false));
    assert_eq!(red.decide("b", &Action::Skip, false), moved("c", false, true));
    assert_eq!(red.decide("a", &goto("c"), false), moved("c", false, false));
    assert_eq!(red.decide("a", &goto("z"), false), Err(Refusal::NoSuchStep("z".into())));
}

#[test]
fn what_was_entered_stays_open() {
    let mut ledger = ledger("!!!");
    ledger.enter("c", "t");
    ledger.enter("a", "t");
    assert_eq!(ledger.can_enter("c"), Ok(()));
    assert_eq!(ledger.can_enter("b"), Err(locked("B", "complete or skip \"A\" first")));
}

#[test]
fn an_unlock_condition_alone_decides_about_its_step() {
    let mut ledger = ledger("!!.");
    ledger.steps[1].unlock = Some(Condition::parse("completed(a) and completed(extra)"));
    ledger.steps[2].unlock = Some(Condition::parse("completed(extra)"));
    let closed = locked("B", "complete \"A\" and \"Extra\" first");
    assert_eq!(ledger.can_enter("b"), Err(closed.clone()));
    // Skipping completes nothing, so it does not open what asks for completion.
    assert_eq!(ledger.decide("a", &Action::Skip, true), Err(closed));
    assert_eq!(ledger.can_enter("c"), Err(locked("C", "complete \"Extra\" first")));
    ledger.complete("extra", "t");
    assert_eq!(ledger.can_enter("c"), Ok(()));
    assert_eq!(ledger.decide("a", &Action::Skip, true), Err(locked("B", "complete \"A\" first")));
    ledger.complete("a", "t");
    assert_eq!(ledger.can_enter("b"), Ok(()));
    ledger.steps[1].unlock = Some(Condition::parse("nonsense"));
    let reason = "its unlock condition cannot be read at character 1: `completed(<step>)` is due here";
    assert_eq!(ledger.can_enter("b"), Err(locked("B", reason)));
}

#[test]
fn the_move_that_completes_a_step_opens_what_asks_for_it() {
    let mut ledger = ledger("..");
    ledger.steps[1].unlock = Some(Condition::parse("completed(a)"));
    assert_eq!(ledger.can_enter("b"), Err(locked("B", "complete \"A\" first")));
    assert_eq!(ledger.decide("a", &Action::Next, true), moved("b", true, false));
}

#[test]
fn a_ring_of_steps_ends() {
    let mut ledger = ledger("!!");
    ledger.steps[1].next = Some("a".into());
    assert_eq!(ledger.can_enter("extra"), Ok(()));
    assert_eq!(ledger.can_enter("b"), Err(locked("B", "complete or skip \"A\" first")));
}

#[test]
fn rows_say_what_was_done() {
    let mut ledger = ledger("!!");
    assert!(ledger.enter("a", "1"));
    assert!(!ledger.enter("a", "2"));
    assert_eq!(ledger.row("a").started_at.as_deref(), Some("1"));
    ledger.skip("a");
    assert!(ledger.enter("b", "3"));
    let row = |step: &str| (ledger.row(step).status, ledger.row(step).skipped);
    assert_eq!(
        [row("a"), row("b"), row("extra")],
        [(Status::Pending, true), (Status::Active, false), (Status::Pending, false)]
    );
    assert!(!ledger.is_finished());
    let mut done = ledger.clone();
    assert!(done.complete("a", "4"));
    assert!(!done.complete("a", "5"));
    done.complete("b", "6");
    done.complete("extra", "7");
    assert_eq!((done.row("a").skipped, done.row("a").completed_at.as_deref()), (false, Some("4")));
    assert_eq!((done.completed(), done.is_finished()), (3, true));
    // A completed step that is entered again stays completed.
    done.enter("a", "8");
    assert_eq!(done.row("a").status, Status::Completed);
    // Skipping what is completed records nothing.
    done.skip("a");
    assert!(!done.row("a").skipped);
}
