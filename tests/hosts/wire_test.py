"""The wire without devices and clock: python3 wire_test.py"""

import unittest

from wire import Settings, Way

FRAMES = [bytes([n % 251]) * (60 + n % 1200) for n in range(2000)]


def through(seed=1, gap_s=0.001, **settings):
    """All frames through a way, each at its time: what came out, as (frame, seconds it took, is_copy), and the way."""
    way = Way(seed)
    for name, value in settings.items():
        way.settings.set(name, value)
    out, taken = [], {}

    def drain(now):
        while (due := way.next_due()) is not None and due <= now:
            frame, is_copy = way.pop(due)
            way.came_out(frame, is_copy, True)
            out.append((frame, due - taken[frame_key(frame)], is_copy))

    def frame_key(frame):
        return bytes(frame[-8:])

    for n, frame in enumerate(FRAMES):
        frame = frame + n.to_bytes(8, "big")
        drain(n * gap_s)
        taken[frame_key(frame)] = n * gap_s
        way.take(frame, n * gap_s)
    drain(float("inf"))
    return out, way


def numbers(out):
    return [int.from_bytes(frame[-8:], "big") for frame, _, is_copy in out if not is_copy]


class WayTest(unittest.TestCase):
    def test_nothing_set_lets_all_pass_at_once_and_in_order(self):
        out, way = through()
        self.assertEqual(numbers(out), list(range(len(FRAMES))))
        self.assertTrue(all(took == 0 for _, took, _ in out))
        self.assertEqual(way.taken, way.delivered)

    def test_delay_and_jitter_stay_within_their_bounds_and_keep_the_order(self):
        out, _ = through(delay_ms=50, jitter_ms=10)
        self.assertEqual(numbers(out), list(range(len(FRAMES))))
        times = [took for _, took, _ in out]
        self.assertGreaterEqual(min(times), 0.040 - 1e-9)
        self.assertLessEqual(max(times), 0.060 + 1e-9)
        self.assertGreater(max(times) - min(times), 0.01)

    def test_loss_is_what_was_asked_for_and_counted(self):
        out, way = through(loss_percent=10)
        self.assertEqual(len(out) + way.lost["drawn"].frames, len(FRAMES))
        self.assertTrue(150 <= way.lost["drawn"].frames <= 250, way.lost["drawn"].frames)
        counts = way.counts()
        self.assertEqual(counts["taken"]["bytes"], counts["delivered"]["bytes"] + counts["lost"]["bytes"])

    def test_the_same_seed_is_the_same_fate_and_another_is_not(self):
        settings = {"loss_percent": 5, "jitter_ms": 3, "delay_ms": 5, "duplicate_percent": 2, "reorder_percent": 2}
        self.assertEqual(through(seed=7, **settings)[0], through(seed=7, **settings)[0])
        self.assertNotEqual(through(seed=7, **settings)[0], through(seed=8, **settings)[0])

    def test_one_setting_does_not_move_what_another_one_meets(self):
        lost = lambda **settings: set(range(len(FRAMES))) - set(numbers(through(loss_percent=5, **settings)[0]))
        self.assertEqual(lost(), lost(duplicate_percent=50, reorder_percent=50, delay_ms=20, jitter_ms=20))

    def test_copies_are_counted_apart(self):
        out, way = through(duplicate_percent=10)
        copies = sum(is_copy for _, _, is_copy in out)
        self.assertTrue(150 <= copies <= 250, copies)
        self.assertEqual(way.delivered.frames, len(FRAMES))
        self.assertEqual(way.copied, way.copies_delivered)

    def test_reorder_holds_back_some_and_loses_none(self):
        out, _ = through(reorder_percent=5, reorder_ms=5)
        order = numbers(out)
        self.assertNotEqual(order, sorted(order))
        self.assertEqual(sorted(order), list(range(len(FRAMES))))
        late = sum(took > 0 for _, took, _ in out)
        self.assertTrue(60 <= late <= 140, late)

    def test_rate_is_kept_and_what_finds_no_place_is_lost(self):
        out, way = through(gap_s=0.0001, rate_kbit=8000, queue_ms=50)
        self.assertGreater(way.lost["full"].frames, 0)
        seconds = len(FRAMES) * 0.0001 + 0.050
        # A megabyte a second, and one frame that had begun.
        self.assertLessEqual(way.delivered.bytes, seconds * 1e6 + 1400)
        self.assertGreater(way.delivered.bytes, seconds * 1e6 * 0.9)
        self.assertLessEqual(max(took for _, took, _ in out), 0.0515)

    def test_a_cut_loses_what_comes_and_not_what_is_under_way(self):
        way = Way(1)
        way.settings.set("delay_ms", 10)
        way.take(b"under way", 0.0)
        way.settings.set("cut", 1)
        way.take(b"too late", 0.001)
        way.settings.set("cut", 0)
        way.take(b"again", 0.002)
        self.assertEqual([way.pop(1.0)[0] for _ in range(2)], [b"under way", b"again"])
        self.assertEqual(way.lost["cut"].bytes, len(b"too late"))

    def test_what_is_queued_is_counted_until_it_comes_out(self):
        way = Way(1)
        way.settings.set("delay_ms", 10)
        way.take(b"frame", 0.0)
        self.assertEqual(way.counts()["queued"], {"frames": 1, "bytes": 5})
        self.assertIsNone(way.pop(0.009))
        way.came_out(*way.pop(0.010), was_taken=False)
        self.assertEqual(way.counts()["lost_refused"], {"frames": 1, "bytes": 5})

    def test_wrong_settings_are_named(self):
        for name, value in [("delay", 1), ("loss_percent", 101), ("delay_ms", -1), ("delay_ms", "much"), ("cut", 2)]:
            with self.assertRaises(ValueError):
                Settings().set(name, value)


if __name__ == "__main__":
    unittest.main()
