package writebuffer

import (
	"log/slog"
	"slices"
	"testing"
	"time"

	"openvstorage/internal/disk"
	"openvstorage/sco"
	"openvstorage/tlog"
)

// How large SCOs are: a sixteenth of the buffer, less where there is no room for so
// many, never under the least, always whole clusters.
func TestShape(t *testing.T) {
	const mib = 1 << 20
	for _, row := range []struct {
		what              string
		bytes, have, free int64
		size              int64
	}{
		{what: "a large buffer", bytes: 2 << 30, free: 8 << 30, size: scoSizeMax},
		{what: "a small one", bytes: 64 * mib, free: 8 << 30, size: scoSizeMin},
		{what: "not whole clusters", bytes: 100*mib + 1, free: 8 << 30, size: 100 * mib / 16},
		{what: "little room", bytes: 2 << 30, free: 192*mib + 200*mib, size: 8 * mib},
		{what: "room that its own files take", bytes: 2 << 30, have: 256 * mib, free: 192 * mib, size: scoSizeMax},
		{what: "no room", bytes: 2 << 30, free: 0, size: scoSizeMin},
	} {
		got := shape(row.bytes, row.have, disk.Usage{Total: 8 << 30, Free: uint64(row.free)})
		if got != row.size || got%sco.ClusterSize != 0 {
			t.Errorf("%s: SCOs of %d bytes, want %d", row.what, got, row.size)
		}
	}
}

// What lacked room is believed for longer each time that it happens again soon.
func TestRoomLacks(t *testing.T) {
	var r room
	r.begin("/data", 1, 100, slog.New(slog.DiscardHandler))
	for i, want := range []time.Duration{holdMin, 2 * holdMin, 4 * holdMin, holdMax, holdMax} {
		r.lacks(disk.ErrWouldBlock, 50-i)
		if r.hold != want || !r.lacking() || r.limit.Load() != int64(50-i) {
			t.Errorf("time %d: held for %v, %d files; want %v", i+1, r.hold, r.limit.Load(), want)
		}
		r.lacks(disk.ErrWouldBlock, 50-i) // at once: it is the same
		if r.hold != want {
			t.Errorf("time %d: the same one holds for %v", i+1, r.hold)
		}
		r.lackedAt = time.Now().Add(-r.hold)
	}
	r.lackedAt = time.Now().Add(-5 * holdMax)
	if r.lacks(disk.ErrWouldBlock, -1); r.hold != holdMin || r.limit.Load() != 0 {
		t.Errorf("long after: held for %v, %d files", r.hold, r.limit.Load())
	}
	if !r.set(200) || r.limit.Load() != 100 || r.set(100) {
		t.Errorf("%d files, at most 100", r.limit.Load())
	}
}

// Numbers are handed out once, below what is reserved; what is reserved is not taken
// back.
func TestNumbers(t *testing.T) {
	var n numbers
	n.sco, n.tlog = 5, 7
	if _, ok := n.takeSCO(); ok || !n.spent() {
		t.Error("a number that is not reserved")
	}
	n.raise(7, 8)
	n.raise(1, 1)
	a, _ := n.takeSCO()
	b, _ := n.takeSCO()
	if _, ok := n.takeSCO(); a != 5 || b != 6 || ok || !n.spent() {
		t.Errorf("SCOs %d, %d, and one more: %v", a, b, ok)
	}
	if id, reserved := n.freeTLog(); id != 7 || !reserved {
		t.Errorf("TLog %d is free, reserved %v", id, reserved)
	}
	n.usedTLog(7)
	n.usedTLog(6) // never down
	if id, reserved := n.freeTLog(); id != 8 || reserved {
		t.Errorf("TLog %d is free, reserved %v", id, reserved)
	}
	if _, ok := n.takeTLog(); ok {
		t.Error("a TLog that is not reserved")
	}
}

// What the append section lets go of waits for its sync and its storing, in order.
func TestBacklog(t *testing.T) {
	now := time.Now()
	scos := make([]*SCO, 4)
	var k backlog
	for i := range scos {
		s := &SCO{Number: sco.Number(i + 1), sealedAt: now.Add(time.Duration(i) * time.Second)}
		s.refs.Store(1)
		s.used.Store(1)
		scos[i] = s
		if k.addSCO(s); i%2 == 1 {
			k.addTLog(&TLog{ID: tlog.ID(i), Size: 10})
		}
	}
	if w := k.work(); !slices.Equal(w.SCOs, scos) || len(w.TLogs) != 2 || k.bytes() != 4*sco.ClusterSize || k.tlogBytes() != 20 || k.empty() {
		t.Errorf("%d SCOs, %d TLogs wait, %d bytes", len(w.SCOs), len(w.TLogs), k.bytes())
	}
	if s := k.nextSync(now.Add(time.Second), 2*time.Second); s != nil {
		t.Errorf("SCO %d is synced early", s.Number)
	}
	if s := k.nextSync(now, 0); s != scos[0] || s.refs.Load() != 2 {
		t.Error("the first one is not the one to sync, or not held")
	}
	scos[0].synced.Store(true)
	if s := k.nextSync(now.Add(3*time.Second), 2*time.Second); s != scos[1] {
		t.Error("the second one is not synced after the first")
	}
	scos[2].synced.Store(true) // out of order: it stays, what is before it is not synced
	if k.passSynced(); len(k.unsynced) != 3 {
		t.Errorf("%d are to be synced", len(k.unsynced))
	}
	if tlogs, of := k.stored(1); len(tlogs) != 1 || !slices.Equal(of, scos[:2]) || !slices.Equal(k.unsynced, scos[2:]) || !slices.Equal(k.work().SCOs, scos[2:]) {
		t.Errorf("%d TLogs and %d SCOs stored", len(tlogs), len(of))
	}
	if k.newest() != k.closed[1] || k.empty() {
		t.Error("the TLog that is not stored is not the newest")
	}
	if gone := k.free(3); len(gone) != 1 || len(k.closed) != 1 {
		t.Errorf("%d TLogs go, of which one is stored", len(gone))
	}
	if k.stored(3); !k.empty() || k.newest() != nil {
		t.Error("something waits when all is stored")
	}
}
