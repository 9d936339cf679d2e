//! Anything may happen in any order: no instance is lost, and each comes to rest.

use proptest::prelude::*;

use super::*;

/// Something that happens to an instance.
#[derive(Debug, Clone)]
enum Happening {
    Wait(u64),
    Use,
    Step(&'static str),
    Reset(u8),
    Update(u8),
    Suspend(bool),
    Hold(bool),
    ExpireIn(i64),
    Template(u8),
    Die,
    Vanish,
    Break(bool),
    Ready,
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        (0..20_000_u64).prop_map(Happening::Wait),
        Just(Happening::Use),
        prop_oneof![Just("one"), Just("two"), Just("three"), Just("nowhere")].prop_map(Happening::Step),
        any::<u8>().prop_map(Happening::Reset),
        any::<u8>().prop_map(Happening::Update),
        any::<bool>().prop_map(Happening::Suspend),
        any::<bool>().prop_map(Happening::Hold),
        (-500..20_000_i64).prop_map(Happening::ExpireIn),
        (0..4_u8).prop_map(Happening::Template),
        Just(Happening::Die),
        Just(Happening::Vanish),
        any::<bool>().prop_map(Happening::Break),
        Just(Happening::Ready),
    ]
}

fn happen(world: &mut World, happening: Happening) {
    match happening {
        Happening::Wait(seconds) => drop(world.after(Duration::from_secs(seconds))),
        Happening::Use => drop(world.used()),
        Happening::Step(step) => world.wish.step = Some(step.into()),
        Happening::Reset(value) => world.wish.reset = Some(value.to_string()),
        Happening::Update(value) => world.wish.update = Some(value.to_string()),
        Happening::Suspend(suspended) => world.wish.suspended = suspended,
        Happening::Hold(hold) => world.wish.hold = hold,
        Happening::ExpireIn(seconds) => world.wish.expires_at = Some(at(world.now.as_second() + seconds)),
        Happening::Template(0) => world.template = Err("gone".into()),
        Happening::Template(1) => world.template = Ok(revision("b", &STEPS)),
        Happening::Template(2) => world.template = Ok(revision("c", &[("one", "9"), ("three", "3")])),
        Happening::Template(_) => world.template = Ok(revision("a", &STEPS)),
        Happening::Die => drop(world.end("it ended")),
        Happening::Vanish => world.seen = Seen::Nothing,
        Happening::Break(broken) => world.broken = if broken { vec!["two"] } else { vec![] },
        Happening::Ready => {
            if let Seen::Running { is_ready, .. } = &mut world.seen {
                *is_ready = true;
            }
        }
    }
}

proptest! {
    #[test]
    fn nothing_that_happens_loses_an_instance_or_leaves_it_restless(
        happenings in proptest::collection::vec(happening(), 0..40),
        live_text: bool,
        persistent: bool,
    ) {
        let mut world = World { live_text, ..World::new() };
        if persistent {
            world.overrides = Some(json!({"lifecycle": {"mode": "persistent"}}));
        }
        for happening in happenings {
            if world.is_forgotten {
                // Only its end, which was told, takes an instance away; never a persistent one.
                prop_assert!(!persistent && world.events.contains(&Reason::Expired), "{:?}", world.events);
                return Ok(());
            }
            happen(&mut world, happening);
            world.look();
        }
        // Left alone it comes to rest, and deciding again changes nothing.
        for _ in 0..200 {
            if world.is_forgotten {
                return Ok(());
            }
            happen(&mut world, Happening::Ready);
            if world.look().actions.is_empty() && !matches!(world.seen, Seen::Running { is_ready: false, .. }) {
                let again = world.decide();
                prop_assert_eq!(&again.actions, &Vec::new());
                prop_assert_eq!(&again.events, &Vec::new());
                prop_assert_eq!(&Record { reason: None, ..again.record }, &world.record);
                if !matches!(world.record.phase, Phase::Provisioning | Phase::Transitioning) {
                    break;
                }
            }
            world.after(Duration::from_secs(1));
        }
        let runs = matches!(world.seen, Seen::Running { is_ready: true, .. });
        match world.record.phase {
            Phase::Running => prop_assert!(runs),
            Phase::Suspended | Phase::Failed | Phase::Pending => prop_assert!(!runs),
            other => prop_assert!(false, "it rests in {other:?}: {world:#?}"),
        }
    }
}
