package fleet

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"openvstorage/alba/osd"

	"github.com/google/uuid"
)

// bench is a fleet whose ticks and clock a test moves.
type bench struct {
	t     *testing.T
	f     *Fleet
	clock time.Time
	disks []*Disk
}

// newBench returns a fleet of disks on file systems of those ids.
func newBench(t *testing.T, shared ...uint64) *bench {
	b := &bench{t: t, clock: time.Unix(1000, 0)}
	b.f = New(func() time.Time { return b.clock })
	for i, s := range shared {
		d := b.f.Add(uint64(i+1), uuid.New(), "node", fmt.Sprint("disk", i+1))
		d.record.usage.Shared = s
		b.disks = append(b.disks, d)
	}
	return b
}

// pass lets time go by.
func (b *bench) pass(t time.Duration) {
	for range ticks(t) {
		b.clock = b.clock.Add(tick)
		b.f.Judge(nil)
	}
}

func (b *bench) begin(d *Disk, k kind, bytes int) (end func(error)) {
	b.t.Helper()
	i, err := d.health.begin(k, bytes)
	if err != nil {
		b.t.Fatal(err)
	}
	return func(err error) { d.health.end(k, i, err) }
}

// takes makes a small request that takes so long; no tick passes.
func (b *bench) takes(d *Disk, k kind, t time.Duration) {
	b.t.Helper()
	end := b.begin(d, k, 0)
	was := b.clock
	b.clock = b.clock.Add(t)
	end(nil)
	b.clock = was
}

// silentAt demands that a disk is seen not to answer when so much time has passed,
// and no earlier.
func (b *bench) silentAt(what string, d *Disk, most time.Duration) {
	b.t.Helper()
	b.pass(most - tick)
	if err := d.Silent(); err != nil {
		b.t.Errorf("%s: before %v: %v", what, most, err)
	}
	b.pass(tick)
	if is := d.Condition(); d.Silent() == nil || is.State != Failing || is.Reason == "" {
		b.t.Errorf("%s: after %v it is %+v", what, most, is)
	}
}

// After how long a disk does not answer.
func TestHungAfter(t *testing.T) {
	for what, c := range map[string]struct {
		kind  kind
		bytes int
		most  time.Duration
	}{
		"a read":                 {reading, 4096, hangAfter},
		"a write":                {writing, 4096, hangAfter},
		"a request":              {asking, 0, hangAfter},
		"12 MiB":                 {reading, 12 << 20, hangAfter + 2*time.Second},
		"a write of much":        {writing, 1 << 30, hangMost},
		"a scrub":                {verifying, 0, verifyMost},
		"a read of much as well": {reading, 1 << 30, hangMost},
	} {
		b := newBench(t, 0, 0)
		began := b.clock
		end := b.begin(b.disks[0], c.kind, c.bytes)
		b.silentAt(what, b.disks[0], c.most)
		b.pass(time.Minute)
		if is := b.disks[0].Condition(); !is.Since.Equal(began) {
			t.Errorf("%s: since %v, and it began at %v", what, is.Since, began)
		}
		if _, err := b.disks[0].health.begin(c.kind, 0); !errors.Is(err, ErrNotAnswering) {
			t.Errorf("%s: more is asked of it: %v", what, err)
		}
		if b.disks[1].Silent() != nil {
			t.Errorf("%s: another disk does not answer", what)
		}
		end(nil)
		b.pass(tick)
		if b.disks[0].Silent() != nil {
			t.Errorf("%s: it has come back", what)
		}
	}
}

// Writes have an order: what counts is since when none of them has come back. Of reads
// each counts.
func TestHungInOrder(t *testing.T) {
	for _, k := range []kind{reading, writing} {
		b := newBench(t, 0)
		d := b.disks[0]
		b.begin(d, k, 0)
		other := b.begin(d, k, 0)
		b.pass(3 * time.Second)
		other(nil)
		if k == reading {
			b.silentAt("reads", d, hangAfter-3*time.Second)
		} else {
			b.silentAt("writes", d, hangAfter)
		}
	}
}

// A request whose calls on the file system come back may take longer, but not for ever. If
// one of its calls does not come back, the calls before that do not count. A disk that did
// not answer is there again only when the request is back.
func TestHungCalls(t *testing.T) {
	b := newBench(t, 0)
	d := b.disks[0]
	back := true
	d.Follow(func() bool { return back })
	end := b.begin(d, writing, 0)
	b.silentAt("calls come back", d, callsTimes*hangAfter)
	end(nil)
	b.pass(time.Minute)

	end = b.begin(d, writing, 0)
	b.pass(10 * time.Second)
	if d.Silent() != nil {
		t.Fatal("its calls come back")
	}
	back = false
	b.silentAt("one does not", d, hangAfter-tick)
	back = true
	b.pass(time.Second)
	if d.Silent() == nil {
		t.Error("the call has come back, and the request has not")
	}
	end(nil)
	b.pass(tick)
	if d.Silent() != nil {
		t.Error("the request has come back")
	}
	b.pass(time.Minute)
	d.Follow(nil)
	b.begin(d, reading, 0)
	b.silentAt("nobody follows it", d, hangAfter)
}

// Beside what a disk is slow: what the others take, the faster half of those that are
// on other file systems.
func TestPar(t *testing.T) {
	for _, c := range []struct {
		what   string
		shared []uint64
		means  []time.Duration
		want   []time.Duration
	}{
		{"one", []uint64{0}, []time.Duration{7}, []time.Duration{0}},
		{"two", []uint64{0, 0}, []time.Duration{1, 10}, []time.Duration{10, 1}},
		{"three", []uint64{0, 0, 0}, []time.Duration{1, 10, 100}, []time.Duration{10, 1, 1}},
		{"four", []uint64{1, 2, 3, 4}, []time.Duration{100, 10, 1000, 1}, []time.Duration{10, 100, 10, 100}},
		{"two of three on one file system", []uint64{1, 2, 2}, []time.Duration{1, 10, 100}, []time.Duration{10, 1, 1}},
		{"one of which nothing is known", []uint64{0, 0, 0}, []time.Duration{1, 0, 100}, []time.Duration{100, 1, 1}},
		{"all on one", []uint64{5, 5, 5}, []time.Duration{1, 10, 100}, []time.Duration{0, 0, 0}},
		{"all but one on one", []uint64{5, 5, 6}, []time.Duration{1, 10, 100}, []time.Duration{100, 100, 1}},
	} {
		b := newBench(t, c.shared...)
		for i, d := range b.disks {
			d.health.costs[writing].mean.Store(int64(c.means[i]))
		}
		b.pass(tick)
		for i, d := range b.disks {
			if got := time.Duration(d.health.par[writing].Load()); got != c.want[i] {
				t.Errorf("%s: disk %d has %d beside it, not %d", c.what, d.Number, got, c.want[i])
			}
		}
	}
}

// When a disk is slow, row by row. The others take a millisecond.
func TestSlowAfter(t *testing.T) {
	const ms = time.Millisecond
	for _, c := range []struct {
		what  string
		takes []time.Duration // of requests that end, one each gap
		gap   time.Duration
		other time.Duration // what the others take
		slow  bool
	}{
		{"three over a second", []time.Duration{200 * ms, 200 * ms, 200 * ms}, 500 * ms, ms, true},
		{"two", []time.Duration{200 * ms, 200 * ms}, 2 * time.Second, ms, false},
		{"three at once", []time.Duration{200 * ms, 200 * ms, 200 * ms}, 0, ms, false},
		{"five times a little", []time.Duration{49 * ms, 49 * ms, 49 * ms, 49 * ms, 49 * ms}, 500 * ms, ms, false},
		{"just enough", []time.Duration{51 * ms, 51 * ms, 51 * ms, 51 * ms}, 500 * ms, ms, true},
		{"not five times", []time.Duration{200 * ms, 200 * ms, 200 * ms, 200 * ms}, 500 * ms, 50 * ms, false},
		{"five times", []time.Duration{251 * ms, 251 * ms, 251 * ms}, 500 * ms, 50 * ms, true},
		{"now and then", []time.Duration{200 * ms, 200 * ms, 200 * ms, 200 * ms}, 6 * time.Second, ms, false},
	} {
		for _, k := range []kind{reading, writing} {
			b := newBench(t, 0, 0, 0)
			d := b.disks[0]
			for _, other := range b.disks[1:] {
				b.takes(other, k, c.other)
			}
			b.pass(tick)
			slow := false
			var since time.Time
			for i, took := range c.takes {
				if i > 0 {
					b.pass(c.gap)
				}
				b.takes(d, k, took)
				b.f.Judge(nil)
				if is := d.Condition(); is.State == Slow {
					if slow && !is.Since.Equal(since) {
						t.Errorf("%s: since %v, and then since %v", c.what, since, is.Since)
					}
					slow, since = true, is.Since
				}
			}
			if slow != c.slow || d.Silent() != nil {
				t.Errorf("%s: %s: slow is %v: %+v", c.what, kindNames[k], slow, d.Condition())
			}
			if !slow {
				continue
			}
			b.pass(wellAfter)
			if is := d.Condition(); is.State != Slow || !is.Since.Equal(since) {
				t.Errorf("%s: before it has shown that it is well: %+v", c.what, is)
			}
			for range wellSamples {
				b.takes(d, k, c.other)
			}
			b.pass(tick)
			if is := d.Condition(); is != (Condition{}) {
				t.Errorf("%s: after it has: %+v", c.what, is)
			}
		}
	}
	// One that is under way.
	b := newBench(t, 0, 0)
	b.takes(b.disks[1], reading, ms)
	b.pass(tick)
	b.begin(b.disks[0], reading, 0)
	b.pass(slowAfter - tick)
	if is := b.disks[0].Condition(); is.State != Well {
		t.Errorf("before %v: %+v", slowAfter, is)
	}
	b.pass(tick)
	if is := b.disks[0].Condition(); is.State != Slow {
		t.Errorf("after %v: %+v", slowAfter, is)
	}
}

// Writes that fail are told as long as somebody has tried lately.
func TestWritesFail(t *testing.T) {
	b := newBench(t, 0)
	d := b.disks[0]
	broken := errors.New("broken")
	is := func(what string, want State) {
		t.Helper()
		if got := d.Condition(); got.State != want || d.Silent() != nil {
			t.Errorf("%s: %+v", what, got)
		}
	}
	d.wrote(1, broken)
	b.pass(tick)
	is("one", Well)
	first := b.clock
	d.wrote(1, nil)
	d.wrote(1, broken)
	d.wrote(1, broken)
	b.pass(tick)
	is("two in a row", Failing)
	if got := d.Condition(); !got.Since.Equal(first) {
		t.Errorf("since %v, and the first was at %v", got.Since, first)
	}
	b.pass(2*restMin + idleAfter - 2*tick)
	is("while it rests and a little longer", Failing)
	b.pass(3 * tick)
	is("nobody has tried since", Well)
	d.wrote(1, fmt.Errorf("no: %w", osd.ErrReadOnly))
	b.pass(tick)
	is("it takes no writes, as it says itself", Well)
}

// A disk that was slow and is asked seldom, as those are that are slow, is well again
// when nothing was slow for a while and something was not.
func TestWellThoughSeldomAsked(t *testing.T) {
	b := newBench(t, 0, 0)
	slow, other := b.disks[0], b.disks[1]
	for range 20 {
		b.takes(other, reading, time.Millisecond)
	}
	b.pass(tick)
	for range slowStrikes {
		b.takes(slow, reading, time.Second)
		b.pass(slowSpan)
	}
	if is := slow.Condition(); is.State != Slow {
		t.Fatalf("%+v", is)
	}
	for range 3 {
		b.pass(2 * time.Second)
		b.takes(slow, reading, time.Millisecond)
	}
	if is := slow.Condition(); is.State != Well {
		t.Errorf("6 s after the last slow request it is %+v", is)
	}
}
