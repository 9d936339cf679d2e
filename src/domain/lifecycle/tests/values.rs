//! Identities of containers and limits of time, as tables.

use super::*;

#[test]
fn what_decides_only_about_time_does_not_make_another_container() {
    let step = &revision("a", &STEPS).steps[0];
    let base = Workspace::default();
    let of = |settings: &Workspace| fingerprint(step, settings, None, None);
    let mut longer = base.clone();
    longer.lifecycle.ttl = "9h".parse().unwrap();
    longer.lifecycle.idle_suspend = false;
    assert_eq!(of(&base), of(&longer));
    let mut larger = base.clone();
    larger.resources.memory = "1Gi".parse().unwrap();
    let mut lasting = base.clone();
    lasting.lifecycle.persist = Some("1Gi".parse().unwrap());
    let prints = [
        of(&base),
        of(&larger),
        of(&lasting),
        fingerprint(step, &base, Some("r"), None),
        fingerprint(step, &base, None, Some("a")),
        fingerprint(&revision("a", &STEPS).steps[1], &base, None, None),
    ];
    for (index, print) in prints.iter().enumerate() {
        assert!(!prints[..index].contains(print), "{index}");
    }
}

#[test]
fn extending_has_a_limit_for_learners_only() {
    let hour = Duration::from_secs(3_600);
    let learner = |by| Extension { by, is_learner: true };
    let owner = |by| Extension { by, is_learner: false };
    let rows = [
        (owner(None), 100, Some(7_200), Some(7_200 + 3_600)),
        (owner(Some(hour * 50)), 100, Some(7_200), Some(7_200 + 180_000)),
        (owner(Some(hour)), 9_000, Some(7_200), Some(9_000 + 3_600)),
        (owner(None), 0, None, None),
        (learner(None), 100, Some(7_200), Some(7_200 + 3_600)),
        (learner(Some(hour * 50)), 100, Some(7_200), Some(7_200 + 3_600)),
        (learner(Some(hour / 4)), 100, Some(7_200), Some(7_200 + 900)),
        (learner(None), 100, Some(20_000), Some(21_600)),
        (learner(None), 100, Some(21_570), None),
        (learner(None), 100, Some(21_600), None),
    ];
    for (asked, now, end, expected) in rows {
        let found = extension(asked, hour * 2, Some(at(0)), end.map(at), at(now));
        assert_eq!(found, expected.map(at), "{asked:?} {now} {end:?}");
    }
    assert_eq!(extension(owner(None), hour, None, Some(at(9)), at(0)), None);
}
