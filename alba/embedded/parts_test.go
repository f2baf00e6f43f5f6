package embedded

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"openvstorage/alba/abm"
	"openvstorage/alba/fleet"
	"openvstorage/alba/health"
	"openvstorage/alba/policy"
	"openvstorage/arakoon"
	"openvstorage/internal/disk"
	"openvstorage/internal/disk/crashdisk"
)

func TestLayout(t *testing.T) {
	at := layout{dir: "/data", id: testID}
	for _, row := range []struct{ dir, endpoint string }{
		{"/data/asd/3", "asd/3"},
		{"/disks/a", "/disks/a"},
		{"/database/asd", "/database/asd"}, // it only begins like the data directory
		{"/data", "/data"},
	} {
		if e := at.endpoint(row.dir); e != row.endpoint {
			t.Errorf("%s is recorded as %s", row.dir, e)
		}
		if dir := at.path(row.endpoint); dir != row.dir {
			t.Errorf("%s is in %s", row.endpoint, dir)
		}
	}
}

// TestExpectedIn: an ASD that was found nowhere is expected in its recorded place if
// that was given, else in any place that was given and holds none.
func TestExpectedIn(t *testing.T) {
	for _, row := range []struct {
		what               string
		recorded, in, left []string
		want               []string
	}{
		{"all are found", []string{"a", "b"}, []string{"b", "a"}, nil, []string{"b", "a"}},
		{"one is not, and its place is given", []string{"a", "b"}, []string{"a", ""}, []string{"b"}, []string{"a", "b"}},
		{"one is not, and another place is given", []string{"a", "b"}, []string{"a", ""}, []string{"c"}, []string{"a", "c"}},
		{"its own place goes to the one that is recorded there", []string{"a", "b"}, []string{"", ""}, []string{"c", "a"}, []string{"a", "c"}},
		{"no place is left", []string{"a", "b"}, []string{"", ""}, []string{"c"}, []string{"c", ""}},
	} {
		if in := expectedIn(row.recorded, slices.Clone(row.in), slices.Clone(row.left)); !slices.Equal(in, row.want) {
			t.Errorf("%s: %q", row.what, in)
		}
	}
}

func TestWhatBecame(t *testing.T) {
	all := []abm.OSD{
		{Number: 1, State: abm.OSDLost}, {Number: 4, Replaces: 2, Node: testID.String(), Endpoint: []byte("asd/1")}, {Number: 6},
		{Number: 9, Replaces: 8, Node: "elsewhere", Endpoint: []byte("asd/1")},
		{Number: 0, Replaces: 5}, // it was registered, and never claimed
	}
	for _, row := range []struct {
		number uint64
		is     error
		says   string
	}{
		{1, nil, "was given up before"},
		{2, ErrReplaced, "by disk 4 in /data/asd/1"},
		{3, ErrNoOSD, "any more"},
		{5, ErrNoOSD, "any more"},
		{8, ErrReplaced, "by disk 9 in DIR/asd/1"}, // of another host's data directory
		{10, ErrNoOSD, "disk 10: no such disk"},
		{0, ErrNoOSD, "disk 0: no such disk"},
	} {
		err := whatBecame(layout{dir: "/data", id: testID}, all, row.number)
		if row.is != nil && !errors.Is(err, row.is) || !strings.Contains(err.Error(), row.says) {
			t.Errorf("disk %d: %v", row.number, err)
		}
	}
}

func TestScrubOfAll(t *testing.T) {
	at := func(s int64) *time.Time { u := time.Unix(s, 0); return &u }
	of := func(began, ends, ended int64) OSD {
		s := &Scrub{Bytes: 1, Of: 2, Fragments: 3, Bad: 4, Began: at(began), Ends: at(ends)}
		if ended > 0 {
			s.Ended = at(ended)
		}
		return OSD{Scrub: s}
	}
	all := scrubOfAll([]OSD{of(20, 120, 19), {}, of(10, 130, 9)}, time.Minute)
	if all.Bytes != 2 || all.Of != 4 || all.Fragments != 6 || all.Bad != 8 || all.Seconds != 60 {
		t.Errorf("sums: %+v", all)
	}
	if !all.Began.Equal(*at(10)) || !all.Ends.Equal(*at(130)) || !all.Ended.Equal(*at(9)) {
		t.Errorf("times: began %v, ends %v, ended %v", all.Began, all.Ends, all.Ended)
	}
	for _, disks := range [][]OSD{{of(20, 120, 0), of(10, 130, 9)}, {of(10, 130, 9), of(20, 120, 0)}} {
		if all := scrubOfAll(disks, time.Minute); all.Ended != nil {
			t.Errorf("a disk has never been read back whole, and all have at %v", all.Ended)
		}
	}
	if all := scrubOfAll(nil, -1); all != (Scrub{}) {
		t.Errorf("of nothing: %+v", all)
	}
}

// TestJudgePolicies: what may be lost of an object that is stored now, and why nothing
// can be stored.
func TestJudgePolicies(t *testing.T) {
	list := policy.ForDisks(3)
	three := []policy.Disk{{OSD: 1, Capacity: 9}, {OSD: 2, Capacity: 9}, {OSD: 3, Capacity: 9}}
	osd := func(number uint64, state health.State) OSD {
		return OSD{Number: number, is: health.DiskIs{State: state}}
	}
	for _, row := range []struct {
		what   string
		disks  []policy.Disk
		now    []OSD
		mayDie int
		full   bool
	}{
		{"three", three, []OSD{osd(1, health.OK), osd(2, health.OK), osd(3, health.Slow)}, 1, false},
		{"two of three", three[:2], []OSD{osd(1, health.OK), osd(2, health.OK), osd(3, health.Missing)}, 0, false},
		{"all are full", three, []OSD{osd(1, health.Full), osd(2, health.Full), osd(3, health.Full)}, 1, true},
		{"none", nil, nil, 0, true},
	} {
		before := slices.Clone(row.disks)
		if n := parityNow(list, row.disks); n != row.mayDie {
			t.Errorf("%s: %d may die", row.what, n)
		}
		if why := noRoom(list, row.disks, row.now); (why != "") != row.full {
			t.Errorf("%s: no room: %q", row.what, why)
		}
		if !slices.Equal(before, row.disks) {
			t.Errorf("%s: the caller's disks were changed", row.what)
		}
	}
}

// TestErrands: a directory has one errand at a time. A caller leaves one whose calls do
// not come back, and the directory is free again when they have.
func TestErrands(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newErrands(crashdisk.New())
		release := make(chan struct{})
		begun := time.Now()
		err := l.do(ctx, "/a", func(disk.FS) error { <-release; return nil })
		if !errors.Is(err, fleet.ErrNotAnswering) || time.Since(begun) != errandStall {
			t.Errorf("an errand that hangs: %v after %v", err, time.Since(begun))
		}
		if err := l.do(ctx, "/a", func(disk.FS) error { return nil }); !errors.Is(err, fleet.ErrNotAnswering) || !l.busy("/a") {
			t.Errorf("a second errand: %v", err)
		}
		if err := l.do(ctx, "/b", func(disk.FS) error { return nil }); err != nil || l.busy("/b") {
			t.Errorf("another directory: %v", err)
		}
		left := l.all()
		if len(left) != 1 || left[0].ended() {
			t.Errorf("under way: %v", left)
		}
		close(release)
		synctest.Wait()
		if l.busy("/a") || !left[0].ended() || left[0].wait(ctx) != nil {
			t.Error("the errand has not ended")
		}
		failed := errors.New("it failed")
		if err := l.do(ctx, "/a", func(disk.FS) error { return failed }); err != failed {
			t.Errorf("an errand that fails: %v", err)
		}
	})
}

// TestDecisions: a change is asked for until its outcome is known, and what was decided
// without an answer is followed later.
func TestDecisions(t *testing.T) {
	unknown := fmt.Errorf("call: %w", arakoon.ErrUnknownOutcome)
	synctest.Test(t, func(t *testing.T) {
		carried, followed := 0, 0
		var refuse error
		d := &decisions{
			carry:  func(context.Context) error { carried++; return refuse },
			follow: func(context.Context) error { followed++; return nil },
		}
		must(t, d.settleLate(ctx))
		if carried != 0 {
			t.Error("there was nothing to follow")
		}
		asked := 0
		must(t, d.decide(ctx, func(context.Context) error {
			if asked++; asked < 3 {
				return unknown
			}
			return nil
		}))
		if asked != 3 {
			t.Errorf("asked %d times", asked)
		}
		refuse = errors.New("no NSM host")
		if err := d.settleLate(ctx); !errors.Is(err, refuse) || followed != 0 {
			t.Errorf("settled: %v", err)
		}
		refuse = nil
		must(t, d.settleLate(ctx))
		must(t, d.settleLate(ctx))
		if carried != 2 || followed != 1 {
			t.Errorf("carried %d times, followed %d times", carried, followed)
		}
		// Its caller leaves, and the ABM never answers.
		gone, leave := context.WithCancel(ctx)
		begun := time.Now()
		err := d.decide(gone, func(context.Context) error { leave(); return unknown })
		if !errors.Is(err, arakoon.ErrUnknownOutcome) || time.Since(begun) != decideMax {
			t.Errorf("no answer: %v after %v", err, time.Since(begun))
		}
		must(t, d.settleLate(ctx))
		if followed != 2 {
			t.Error("what the ABM may have decided was not followed")
		}
	})
}
