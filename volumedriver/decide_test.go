package volumedriver

import (
	"testing"
	"time"
)

func TestPace(t *testing.T) {
	const idleAfter, slots = 30 * time.Second, 4
	for _, c := range []struct {
		name     string
		fill     float64
		idle     time.Duration
		urgent   bool
		parallel int
		rest     time.Duration
	}{
		{"a buffer with room, in use", 0.2, time.Second, false, 0, 0},
		{"the same, at rest", 0.2, idleAfter, false, 1, 20 * time.Millisecond},
		{"somebody waits", 0.01, 0, true, slots, 0},
		{"it begins to fill", paceLow, 0, false, 1, 200 * time.Millisecond},
		{"half way", 0.5, 0, false, 2, 50 * time.Millisecond},
		{"nearly full", paceHigh, 0, false, slots, 0},
		{"full", 1, 0, false, slots, 0},
	} {
		parallel, rest := pace(c.fill, c.idle, idleAfter, c.urgent, slots)
		if parallel != c.parallel || rest != c.rest {
			t.Errorf("%s: %d side by side, a rest of %v; not %d, %v", c.name, parallel, rest, c.parallel, c.rest)
		}
	}
}

func TestEarly(t *testing.T) {
	for _, c := range []struct {
		name          string
		fill          float64
		written, live int64
		early         bool
	}{
		{"nothing is written twice", paceLow, 100, 100, false},
		{"little room is used", 0.2, 100, 100, true},
		{"a fifth is dead, a third of the buffer full", 0.33, 100, 80, true},
		{"a fifth is dead, more is full", 0.36, 100, 80, false},
		{"most is dead, half full", 0.5, 100, 20, true},
		{"most is dead, two thirds full", 0.66, 100, 20, false},
		{"all is dead, nearly full", paceHigh, 100, 0, false},
		{"nothing but trims", paceLow, 0, 0, false},
		{"more seems to live than there is", paceLow, 100, 120, false},
	} {
		if got := early(c.fill, c.written, c.live); got != c.early {
			t.Errorf("%s: early is %v", c.name, got)
		}
	}
}

func TestGroupLen(t *testing.T) {
	const tlog, buffer = 64, 1024 // a quarter of the buffer, which is little: 256
	for _, c := range []struct {
		name       string
		live       []int64
		next, last int
		n          int
	}{
		{"one by itself, though it be long", []int64{400}, 1, 1, 1},
		{"as much as a TLog has", []int64{30, 34, 1, 300}, 4, 4, 2},
		{"nothing live costs nothing", []int64{64, 0, 0, 300}, 4, 4, 3},
		{"a long one is by itself", []int64{300, 1, 1}, 3, 3, 1},
		{"to where a checkpoint waits", []int64{10, 10, 10, 300}, 1, 3, 2},
		{"little is live: all of it", []int64{100, 100, 50, 6}, 4, 4, 4},
		{"little: to the last checkpoint", []int64{100, 50, 50, 6}, 0, 2, 3},
		{"one more than little", []int64{100, 100, 50, 7}, 4, 4, 1},
		{"a checkpoint behind the first", []int64{1, 1, 300}, 0, 0, 1},
	} {
		if n := groupLen(c.live, c.next, c.last, tlog, buffer); n != c.n {
			t.Errorf("%s: %d, not %d", c.name, n, c.n)
		}
	}
}

func TestWorthCheckpoint(t *testing.T) {
	const mib, buffer = 1 << 20, 1 << 30
	for _, c := range []struct {
		name  string
		g     garbage
		all   int64
		free  bool
		worth bool
	}{
		{"nothing", garbage{}, 0, false, false},
		{"eight of a few", garbage{waiting: 8, left: 20}, 0, false, false},
		{"nine of a few", garbage{waiting: 9, left: 20}, 0, false, true},
		{"nine of many", garbage{waiting: 9, left: 80}, 0, false, false},
		{"an eighth and one of many", garbage{waiting: 11, left: 80}, 0, false, true},
		{"a pending one covers it", garbage{waiting: 500, left: 500, pending: true}, 0, false, false},
		{"little behind the pending one", garbage{pending: true, stored: 64 * mib}, 100 * mib, false, false},
		{"more than the least", garbage{pending: true, stored: 65 * mib}, 100 * mib, false, true},
		{"much, of very much", garbage{pending: true, stored: 100 * mib}, 8000 * mib, false, false},
		{"an eighth of the buffer, with what died there", garbage{pending: true, stored: 60 * mib, local: 68 * mib}, 8000 * mib, false, false},
		{"and more", garbage{pending: true, stored: 60 * mib, local: 69 * mib}, 8000 * mib, false, true},
		{"all is to go", garbage{waiting: 1, left: 80, unfrozen: 1}, 0, true, true},
		{"all is to go, and a pending one covers it", garbage{waiting: 9, left: 9, pending: true}, 0, true, false},
	} {
		if worth := worthCheckpoint(c.g, c.all, buffer, c.free); worth != c.worth {
			t.Errorf("%s: %v", c.name, worth)
		}
	}
}

func TestTimeToLook(t *testing.T) {
	for _, c := range []struct {
		written uint64
		all     int64
		is      bool
	}{
		{16<<20 - 1, 0, false},
		{16 << 20, 0, true},
		{16 << 20, 1 << 30, false},
		{32 << 20, 1 << 30, true},
	} {
		if is := timeToLook(c.written, c.all); is != c.is {
			t.Errorf("%d bytes of %d: %v", c.written, c.all, is)
		}
	}
}
