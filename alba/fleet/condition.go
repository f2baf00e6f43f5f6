package fleet

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"openvstorage/alba/osd"
)

// ErrNotAnswering is matched, beside ErrMissing, by the error of calls on a disk
// that is attached and does not answer: a request has been under way for longer
// than any disk takes that is well. Nothing more is asked of it until what it was
// asked has come back; then it is there again, by itself.
var ErrNotAnswering error = notAnswering{}

type notAnswering struct{}

func (notAnswering) Error() string { return "disk does not answer" }

// Is reports whether target is ErrMissing.
func (notAnswering) Is(target error) bool { return target == ErrMissing }

// State is how a disk does, as far as those who use it can tell.
type State int

// The states, the worst last.
const (
	Well    State = iota
	Slow          // far slower than the others: it is read from and written to last
	Failing       // its writes fail, or it does not answer
)

func (s State) String() string { return [...]string{"ok", "slow", "failing"}[s] }

// Condition is a state, why, and since when. Of a disk that is well the last two
// are their zero values.
type Condition struct {
	State  State
	Reason string
	Since  time.Time
}

// Time is counted in ticks of Fleet.Watch and not by the clock: if the process
// stands still, or the machine does, no disk has failed to answer meanwhile.
const (
	tick = 250 * time.Millisecond

	// A disk does not answer if a request has been under way for hangAfter and
	// the time that the bytes under way take at hangRate, hangMost at most. Of
	// writes, which have an order, that is counted from the last that came back.
	hangAfter = 4 * time.Second
	hangRate  = 6 << 20 // bytes a second
	hangMost  = 8 * time.Second
	// As long as calls on its file system come back (see Disk.Follow), a request that
	// makes many of them may take callsTimes as long.
	callsTimes = 8
	// So long may reading values back take.
	verifyMost = 30 * time.Second

	// A disk is slow whose requests take slowTimes as long as those of the
	// others, and slowLeast for each unit (see units): three of them over a
	// second or more, or one that is under way for slowAfter.
	slowTimes   = 5
	slowLeast   = 50 * time.Millisecond
	slowAfter   = 2 * time.Second
	slowStrikes = 3
	slowSpan    = time.Second
	// It is well again after this long with enough requests that were not slow,
	// or without any.
	wellAfter   = 3 * time.Second
	wellSamples = 4
	idleAfter   = 5 * time.Second
)

func ticks(d time.Duration) int64 { return int64(d / tick) }

// units make requests of different size comparable: one for the request, and one
// for each MiB.
func units(bytes int) float64 { return 1 + float64(bytes)/(1<<20) }

// kind is a kind of request, each with an order and a speed of its own.
type kind int

const (
	reading kind = iota
	writing
	asking    // what is answered without the medium, mostly
	verifying // of as many whole values as were asked for
	kinds
)

var kindNames = [kinds]string{"a read", "a write", "a request", "a scrub"}

// call is a request under way. They are linked in the order in which they began.
type call struct {
	prev, next int32
	begun      int64 // tick
	at         time.Time
	bytes      int
}

// calls are the requests of one kind under way. Places are used again: in steady
// state nothing is allocated.
type calls struct {
	list        []call // 0 is the head of the ring
	free        []int32
	count       int
	bytes       int
	done        int64 // tick of the last that came back
	strikes     int
	firstStrike int64
	lastStrike  int64
	samples     int // that were not slow, since the last that was
}

func (c *calls) add(begun int64, at time.Time, bytes int) int32 {
	if len(c.list) == 0 {
		c.list = append(c.list, call{})
	}
	var i int32
	if n := len(c.free); n > 0 {
		i, c.free = c.free[n-1], c.free[:n-1]
	} else {
		i = int32(len(c.list))
		c.list = append(c.list, call{})
	}
	last := c.list[0].prev
	c.list[i] = call{prev: last, begun: begun, at: at, bytes: bytes}
	c.list[last].next, c.list[0].prev = i, i
	c.count++
	c.bytes += bytes
	return i
}

func (c *calls) remove(i int32) {
	k := c.list[i]
	c.list[k.prev].next, c.list[k.next].prev = k.next, k.prev
	c.free = append(c.free, i)
	c.count--
	c.bytes -= k.bytes
}

// oldest returns the request that has been under way for longest.
func (c *calls) oldest() *call {
	if c.count == 0 {
		return nil
	}
	return &c.list[c.list[0].next]
}

// health is what is observed of a disk.
type health struct {
	mu        sync.Mutex
	kinds     [kinds]calls
	busy      int64 // last tick at which something was under way
	turned    int64 // no call on the medium that began before this tick's has not come back; 0: not known
	condition Condition
	silent    bool // it does not answer

	answers context.Context // ends when it does not answer; renewed
	silence context.CancelFunc
}

// begin notes that a request begins, and refuses it if the disk does not answer.
func (d *Disk) begin(k kind, bytes int) (int32, error) {
	h := &d.health
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.silent {
		return 0, d.silentLocked()
	}
	return h.kinds[k].add(d.fleet.ticks.Load(), d.now(), bytes), nil
}

func (d *Disk) silentLocked() error {
	return fmt.Errorf("disk %d (%s): %w: %s", d.Number, d.Place, ErrNotAnswering, d.health.condition.Reason)
}

// end notes that a request has come back. One that was given up before its turn says
// nothing of the disk; of one that did what it was asked to, the time counts.
func (d *Disk) end(k kind, i int32, err error) {
	h := &d.health
	now := d.fleet.ticks.Load()
	h.mu.Lock()
	defer h.mu.Unlock()
	c := &h.kinds[k]
	began := c.list[i]
	c.remove(i)
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return
	}
	c.done = now
	h.busy = now
	if err != nil || k > writing {
		return
	}
	took := d.now().Sub(began.at)
	cost := time.Duration(float64(took) / units(began.bytes))
	d.costs[k].note(cost)
	if d.slower(k, cost) {
		c.strike(now)
	} else {
		c.samples++
	}
}

// slower says whether a cost for a unit is far above that of the other disks.
func (d *Disk) slower(k kind, cost time.Duration) bool {
	par := time.Duration(d.par[k].Load())
	return par > 0 && cost >= slowLeast && cost >= slowTimes*par
}

func (c *calls) strike(now int64) {
	if c.strikes == 0 || now-c.lastStrike > ticks(idleAfter) {
		c.strikes, c.firstStrike = 0, now
	}
	c.strikes++
	c.lastStrike, c.samples = now, 0
}

// judge looks at what is under way. It returns the condition before and after.
func (d *Disk) judge(now int64) (before, after Condition) {
	h := &d.health
	turn := d.turns()
	h.mu.Lock()
	defer h.mu.Unlock()
	before = h.condition
	switch {
	case turn == nil:
		h.turned = 0
	case turn():
		h.turned = now
	}
	after = d.conditionLocked(now)
	if after.State == before.State && after.State != Well {
		after.Since = before.Since
	}
	h.condition = after
	return before, after
}

func (d *Disk) conditionLocked(now int64) Condition {
	h := &d.health
	for k := range h.kinds {
		if h.kinds[k].count > 0 {
			h.busy = now
		}
	}
	if why, since := h.hung(now); why != "" {
		if !h.silent {
			h.silent = true
			h.silence()
		}
		return Condition{Failing, why, since}
	}
	if h.silent {
		h.silent = false
		h.answers, h.silence = context.WithCancel(context.Background())
		// It gets its part again when it has shown that it is well.
		for _, k := range []kind{reading, writing} {
			c := &h.kinds[k]
			c.strikes, c.firstStrike, c.lastStrike, c.samples = slowStrikes, now-ticks(slowSpan), now, 0
		}
	}
	if why, since := d.writesFail(); why != "" {
		return Condition{Failing, why, since}
	}
	return d.slowLocked(now)
}

// Follow tells the disk, once it is attached, how to find out whether calls on its
// file system come back: turn is asked now and then, and true if all have that began
// before the time before last that it was.
func (d *Disk) Follow(turn func() bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.turn = turn
}

func (d *Disk) turns() func() bool {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.turn
}

// hung says which request has not come back, and since when that is under way.
func (h *health) hung(now int64) (why string, since time.Time) {
	bytes := h.kinds[reading].bytes + h.kinds[writing].bytes
	allowed := min(hangAfter+time.Duration(float64(bytes)/hangRate*float64(time.Second)), hangMost)
	for k := range h.kinds {
		c := &h.kinds[k]
		o := c.oldest()
		if o == nil {
			continue
		}
		from := o.begun
		if kind(k) == writing {
			from = max(from, c.done)
		}
		most := allowed
		if kind(k) == verifying {
			most = verifyMost
		}
		// Of one whose calls come back it is the calls that must not take so long: it
		// may make many. One that has not answered must have come back all the same.
		stuck := h.silent || now-h.turned+1 >= ticks(most)
		if over := now - from; over >= ticks(most) && (stuck || over >= ticks(callsTimes*most)) {
			return kindNames[k] + " has not come back", o.at
		}
	}
	return "", time.Time{}
}

// slowLocked says whether the disk is slow.
func (d *Disk) slowLocked(now int64) Condition {
	h := &d.health
	was := h.condition.State == Slow
	var worst Condition
	for _, k := range []kind{reading, writing} {
		c := &h.kinds[k]
		o := c.oldest()
		if o != nil && now-o.begun >= ticks(slowAfter) {
			took := time.Duration(now-o.begun) * tick
			if d.slower(k, time.Duration(float64(took)/units(o.bytes))) {
				c.strike(now)
				c.strikes, c.firstStrike = slowStrikes, min(c.firstStrike, now-ticks(slowSpan))
			}
		}
		switch {
		case c.strikes == 0:
			continue
		case now-h.busy >= ticks(idleAfter),
			now-c.lastStrike >= ticks(wellAfter) && (c.samples >= wellSamples || c.count == 0 && now-c.done >= ticks(idleAfter)),
			now-c.lastStrike >= ticks(idleAfter) && c.samples > 0: // whoever is read from last is read from seldom
			c.strikes = 0
			continue
		}
		if was || c.strikes >= slowStrikes && c.lastStrike-c.firstStrike >= ticks(slowSpan) {
			worst = Condition{State: Slow, Reason: d.pace(k), Since: d.now()}
		}
	}
	return worst
}

// pace says how long requests take, beside the others'.
func (d *Disk) pace(k kind) string {
	own, par := time.Duration(d.costs[k].mean.Load()), time.Duration(d.par[k].Load())
	what := [...]string{"reads", "writes"}[k]
	if own < slowTimes*par || par == 0 {
		return fmt.Sprintf("%s have been held up", what)
	}
	return fmt.Sprintf("%s take %v, and %v on the other disks", what, own.Round(time.Millisecond), par.Round(100*time.Microsecond))
}

// writesFail says why writes fail, if several in a row have, and somebody has tried
// lately.
func (d *Disk) writesFail() (why string, since time.Time) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	// That it takes no writes it says itself (Usage.ReadOnly).
	if d.failures < 2 || d.now().Sub(d.rest) > idleAfter || errors.Is(d.failure, osd.ErrReadOnly) {
		return "", time.Time{}
	}
	return fmt.Sprintf("%d writes in a row have failed: %v", d.failures, d.failure), d.failing
}

// Condition returns how the disk does.
func (d *Disk) Condition() Condition {
	d.health.mu.Lock()
	defer d.health.mu.Unlock()
	return d.health.condition
}

// Silent is not nil if the disk does not answer, and says so.
func (d *Disk) Silent() error {
	d.health.mu.Lock()
	defer d.health.mu.Unlock()
	if !d.health.silent {
		return nil
	}
	return d.silentLocked()
}

// ReadsHang reports whether the disk does not answer and its reads are why: whoever
// reads from it waits, too. Of one whose writes alone do not come back reads may.
func (d *Disk) ReadsHang() bool {
	h := &d.health
	h.mu.Lock()
	defer h.mu.Unlock()
	o := h.kinds[reading].oldest()
	return h.silent && o != nil && d.fleet.ticks.Load()-o.begun >= ticks(hangAfter)
}

// Answers ends as soon as the disk is seen not to answer.
func (d *Disk) Answers() context.Context {
	d.health.mu.Lock()
	defer d.health.mu.Unlock()
	return d.health.answers
}

// Late reports whether nobody should wait for the disk who can do without.
func (d *Disk) Late() bool { return d.Condition().State != Well }

// Behind reports whether the disk is slow and has something to write: what it cannot
// take is better left to a repair than kept in memory for it.
func (d *Disk) Behind() bool {
	d.health.mu.Lock()
	defer d.health.mu.Unlock()
	return d.health.condition.State != Well && d.health.kinds[writing].count > 0
}

// Watch follows how the disks do until ctx ends. changed, if not nil, hears of each
// condition that is another than before.
func (f *Fleet) Watch(ctx context.Context, changed func(d *Disk, before, after Condition)) {
	t := time.NewTicker(tick)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			f.Judge(changed)
		}
	}
}

// Judge is one tick of Watch.
func (f *Fleet) Judge(changed func(d *Disk, before, after Condition)) {
	now := f.ticks.Add(1)
	all := f.All()
	for _, k := range []kind{reading, writing} {
		f.compare(all, k)
	}
	for _, d := range all {
		before, after := d.judge(now)
		if before.State != after.State && changed != nil {
			changed(d, before, after)
		}
	}
}

// compare tells each disk what the others take, and the fleet what reads should.
// Those on its own file system are no others: they wait for the same medium, and
// what one of them is spared the next one gets.
func (f *Fleet) compare(all []*Disk, k kind) {
	type pace struct {
		of     *Disk
		shared uint64
		mean   time.Duration
	}
	var paces []pace
	var bounds []time.Duration
	for _, d := range all {
		if mean := time.Duration(d.costs[k].mean.Load()); mean > 0 && d.Silent() == nil {
			paces = append(paces, pace{d, d.Known().Shared, mean})
			bounds = append(bounds, d.costs[k].bound())
		}
	}
	slices.SortFunc(paces, func(a, b pace) int { return cmp.Compare(a.mean, b.mean) })
	for _, d := range all {
		shared := d.Known().Shared
		var others []time.Duration
		for _, p := range paces {
			if p.of != d && (shared == 0 || p.shared != shared) {
				others = append(others, p.mean)
			}
		}
		d.par[k].Store(int64(lowerMedian(others)))
	}
	if k == reading {
		slices.Sort(bounds)
		f.usual.Store(int64(lowerMedian(bounds)))
	}
}

// lowerMedian of a sorted list; 0 of none. Of two disks the faster one counts.
func lowerMedian[T cmp.Ordered](list []T) (m T) {
	if len(list) > 0 {
		m = list[(len(list)-1)/2]
	}
	return m
}

// aside makes a call on a disk that the caller leaves if the disk does not
// answer, or ctx ends. What the call reads must not be changed any more then.
func aside[T any](ctx context.Context, d *Disk, call func(ctx context.Context) (T, error)) (v T, err error) {
	answers := d.Answers()
	type result struct {
		v   T
		err error
	}
	done := make(chan result, 1)
	inner, cancel := context.WithCancel(ctx)
	defer cancel() // what still waits for its turn is not done any more
	go func() {
		var r result
		r.v, r.err = call(inner)
		done <- r
	}()
	select {
	case r := <-done:
		return r.v, r.err
	case <-ctx.Done():
		return v, d.name(ctx.Err())
	case <-answers.Done():
	}
	select { // it has come back meanwhile
	case r := <-done:
		return r.v, r.err
	default:
	}
	if err := d.Silent(); err != nil {
		return v, err
	}
	return v, d.name(ErrNotAnswering)
}

// left says whether a call was left because the disk does not answer.
func left(err error, answers context.Context) bool {
	return errors.Is(err, context.Canceled) && answers.Err() != nil
}
