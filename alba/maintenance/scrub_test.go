package maintenance_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"openvstorage/alba/albatest"
	"openvstorage/alba/maintenance"
	"openvstorage/alba/osd"
	"openvstorage/alba/osd/osdtest"
)

const day = 24 * time.Hour

// scrubbed is a backend whose disks are read back, in the time of a bubble.
type scrubbed struct {
	*albatest.Backend
	t     *testing.T
	mu    sync.Mutex // of the following while maintenance runs
	kept  []byte
	saves int
	fail  error         // of keeping
	tick  time.Duration // of maintenance, 0: a minute
	total uint64
}

func newScrubbed(t *testing.T, objects int) *scrubbed {
	s := &scrubbed{Backend: albatest.New(t, 3, twoOne, nil), t: t}
	check(t, s.CreateNamespace(ctx, "ns"))
	for i := range objects { // fragments of a few sizes
		check(t, s.Namespace("ns").Put(ctx, fmt.Sprint("o", i), osdtest.Data(5000+20_000*(i%7), uint64(i))))
	}
	for _, d := range s.Disks {
		list, err := d.Range(ctx, nil, nil, 10_000)
		check(t, err)
		for _, info := range list {
			s.total += uint64(info.Size)
		}
	}
	return s
}

// fails has what is to be kept be refused.
func (s *scrubbed) fails(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail = err
}

// start runs maintenance, with what was kept before.
func (s *scrubbed) start(period time.Duration) *maintenance.Maintenance {
	o := s.WorkOptions()
	o.Now, o.Tick, o.Survey, o.Collect, o.Scrub, o.Retry = time.Now, cmp.Or(s.tick, time.Minute), day, 100*day, period, time.Second
	o.ScrubKept = func() ([]byte, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.kept, nil
	}
	o.ScrubKeep = func(b []byte) error {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.fail != nil {
			return s.fail
		}
		s.saves++
		s.kept = b
		return nil
	}
	w := maintenance.New(o)
	w.Start()
	return w
}

// part demands how much of all was read back by w, in per cent.
func (s *scrubbed) part(w *maintenance.Maintenance, least, most uint64) {
	s.t.Helper()
	if p := 100 * w.Stats().ScrubbedBytes / s.total; p < least || p > most {
		s.t.Errorf("%d %% were read back after %v, want %d to %d", p, time.Now().UTC(), least, most)
	}
}

// Fragments of all sizes are read back in the time that is set, evenly, once.
func TestScrubTakesItsTime(t *testing.T) {
	for _, period := range []time.Duration{14 * day, 6 * time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			s := newScrubbed(t, 80)
			begin := time.Now()
			w := s.start(period)
			for _, part := range []uint64{25, 50, 75} {
				time.Sleep(period / 4)
				s.part(w, part-5, part+5)
			}
			time.Sleep(period/4 - 2*time.Minute)
			for n := range uint64(3) {
				p, ok := w.ScrubOf(n + 1)
				if !ok || p.Bytes == 0 || !p.Resting && p.Bytes*100 < s.total/3*95 {
					t.Errorf("disk %d: %+v", n+1, p)
				}
			}
			s.part(w, 95, 100)
			time.Sleep(10 * time.Minute) // the next round
			if p, _ := w.ScrubOf(1); p.Ended.IsZero() || p.Began.Before(begin.Add(period)) || p.Resting {
				t.Errorf("%+v", p)
			}
			s.part(w, 100, 105)
			w.Close()
		})
	}
}

// A restart goes on where the scrub was: after a clean stop, and but for a minute at
// most after a kill. What fell behind is caught up with, in bounds.
func TestScrubGoesOnAfterRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScrubbed(t, 80)
		w := s.start(14 * day)
		time.Sleep(5 * day)
		if s.saves == 0 || s.saves > 5*24*60 {
			t.Errorf("it was written down %d times", s.saves)
		}
		kept := s.kept
		s.part(w, 30, 41)
		w.Close()
		s.kept = kept // as a kill leaves it
		sum := w.Stats().ScrubbedBytes

		time.Sleep(5 * day) // nothing runs
		first := &noted{OSD: s.Faults[1]}
		s.Fleet.Disk(1).Attach(first)
		w = s.start(14 * day)
		time.Sleep(time.Hour)
		if list := first.list(); len(list) == 0 || list[0] == "" {
			t.Errorf("it does not go on behind what it has read: %q", list)
		}
		if p, ok := w.ScrubOf(1); !ok || p.Bytes < s.total/3*3/10 {
			t.Errorf("%+v", p)
		}
		time.Sleep(day)
		p := 100 * w.Stats().ScrubbedBytes / s.total
		if p < 8 || p > 8*8 {
			t.Errorf("%d %% were read back in a day", p)
		}
		time.Sleep(3*day - 2*time.Hour)
		sum += w.Stats().ScrubbedBytes
		if sum < s.total*97/100 || sum > s.total*105/100 {
			t.Errorf("%d of %d bytes were read back in one round", sum, s.total)
		}
		w.Close()

		// What was written down is of no use: the round begins anew.
		for _, kept := range []string{"", "{", `{"version":2}`, `{"version":1,"crc":1,"disks":[]}`, string(s.kept[:len(s.kept)-1])} {
			s.kept = []byte(kept)
			w = s.start(14 * day)
			time.Sleep(day)
			if p, ok := w.ScrubOf(1); !ok || !p.Began.After(time.Now().Add(-2*day)) {
				t.Errorf("%s: %+v", kept, p)
			}
			w.Close()
		}
	})
}

// A process that is killed again and again, a moment after each start, reads back what it
// has not read before, and comes to the end.
func TestScrubGetsOnThoughKilled(t *testing.T) {
	for _, life := range []time.Duration{1500 * time.Millisecond, 5 * time.Second, 59 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			s := newScrubbed(t, 20)
			s.tick = time.Second
			var ended bool
			var p maintenance.ScrubProgress
			for kills := 0; !ended; kills++ {
				if kills == 1000 {
					t.Fatalf("killed every %v, the scrub does not come to its end: %+v %s", life, p, s.kept)
				}
				w := s.start(14 * day)
				time.Sleep(life)
				s.mu.Lock()
				kept := s.kept
				s.mu.Unlock()
				p, _ = w.ScrubOf(1)
				ended = !p.Ended.IsZero()
				w.Close()
				s.kept = kept // as a kill leaves it
			}
		})
	}
}

// What a process writes down soon after its start it writes down less and less often.
func TestScrubIsWrittenDownSeldom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScrubbed(t, 80)
		s.tick = time.Second
		w := s.start(time.Hour)
		time.Sleep(30 * time.Minute)
		s.mu.Lock()
		if s.saves < 20 || s.saves > 40 {
			t.Errorf("it was written down %d times in 30 minutes", s.saves)
		}
		s.mu.Unlock()
		w.Close()
	})
}

// noted is a disk that notes behind which keys it is asked to read back.
type noted struct {
	osd.OSD
	mu    sync.Mutex
	after []string
}

func (n *noted) Verify(ctx context.Context, after []byte, limit int) ([]osd.Bad, []byte, error) {
	n.mu.Lock()
	n.after = append(n.after, string(after))
	n.mu.Unlock()
	return n.OSD.Verify(ctx, after, limit)
}

func (n *noted) list() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.after)
}

// hanging is a disk whose Verify does not return, whatever becomes of its context.
type hanging struct {
	osd.OSD
	until chan struct{}
}

func (h hanging) Verify(context.Context, []byte, int) ([]osd.Bad, []byte, error) {
	<-h.until
	return nil, nil, errBroken
}

// A disk that does not answer, or fails, holds up neither the others nor a stop; what
// cannot be written down is tried again.
func TestScrubOfOthersGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScrubbed(t, 40)
		block := make(chan struct{})
		s.Fleet.Disk(1).Attach(hanging{s.Faults[1], block})
		s.Faults[2].Add(osdtest.Rule{Ops: []osdtest.Op{osdtest.Verify}, Err: errBroken})
		s.fails(errors.New("no room"))
		w := s.start(10 * day)
		time.Sleep(5 * day)
		if p, _ := w.ScrubOf(3); p.Bytes < s.total/3*45/100 {
			t.Errorf("disk 3: %+v", p)
		}
		if p, _ := w.ScrubOf(1); p.Bytes != 0 {
			t.Errorf("disk 1: %+v", p)
		}
		if n := w.Stats().Failures; n == 0 || n > 5*24*60+10 {
			t.Errorf("%d failures were told", n)
		}
		s.fails(nil)
		began := time.Now()
		w.Close()
		if took := time.Since(began); took > time.Minute {
			t.Errorf("the stop took %v", took)
		}
		if len(s.kept) == 0 {
			t.Error("nothing was written down")
		}
		close(block)
		synctest.Wait()
	})
}

// What the scrub finds is made again; a disk with nothing on it waits for something.
func TestScrubFindsAndWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &scrubbed{Backend: albatest.New(t, 3, twoOne, nil), t: t}
		w := s.start(2 * day)
		time.Sleep(5 * day)
		if p, _ := w.ScrubOf(1); !p.Ended.IsZero() {
			t.Errorf("%+v", p)
		}
		fill(t, s.Backend, "ns", 8)
		list, err := s.Disks[2].Range(ctx, nil, []byte("p"), 100) // without the recovery records
		check(t, err)
		s.Disks[2].Corrupt(list[len(list)-1].Key, 0)
		time.Sleep(2*day + time.Hour)
		if p, _ := w.ScrubOf(2); p.Ended.IsZero() {
			t.Errorf("%+v", p)
		}
		if n := w.Stats().Repaired; n != 1 {
			t.Errorf("%d fragments were made again", n)
		}
		w.Close()
		check(t, w.Survey(ctx))
		s.Check()
	})
}
