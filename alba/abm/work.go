package abm

import (
	"openvstorage/alba/nsm/record"
	"openvstorage/alba/nsm/userfn"
)

// Bounds of the work queue and of jobs.
const (
	MaxWork     = 10000   // items, failed ones among them
	MaxWorkAdd  = 256     // items that one call adds
	MaxWorkData = 4 << 10 // bytes of what an item says
	MaxReason   = 1 << 10 // bytes of why an item failed
	MaxJobs     = 1000    // jobs whose progress is kept
)

// WorkState says what is with an item of work.
type WorkState uint8

// States of an item. Numbers are stored.
const (
	WorkWaiting WorkState = 1
	WorkTaken   WorkState = 2 // Holder does it
	WorkFailed  WorkState = 3 // it waits for somebody to retry or drop it
)

func (s WorkState) String() string {
	names := [...]string{WorkWaiting: "waiting", WorkTaken: "taken", WorkFailed: "failed"}
	if int(s) < len(names) && names[s] != "" {
		return names[s]
	}
	return "unknown"
}

// Work is an item of the work queue. To do an item twice does what doing it once does: a
// holder that lost its item may still be at it when the next one begins.
type Work struct {
	Number uint64
	Name   string // of one item at a time: adding it again adds nothing
	Data   []byte // what is to be done; opaque here
	State  WorkState
	Holder string // who took it last
	// Fence tells holders apart. It rises from holder to holder over all items, so whatever an
	// item changes may be fenced with it.
	Fence    uint64
	Beat     uint64 // how often its holder has shown that it lives
	Attempts uint32 // how often it was taken
	Reason   string // why it failed last
}

// Fields implements record.Record: U64 number, String name, Bytes data, Enum state, String
// holder, U64 fence, U64 beat, U32 attempts, String reason.
func (w *Work) Fields(c *record.Codec) {
	c.U64(&w.Number)
	c.String(&w.Name, MaxLabel)
	c.Bytes(&w.Data, MaxWorkData)
	s := uint8(w.State)
	c.Enum(&s, uint8(WorkWaiting), uint8(WorkFailed), "state of work")
	w.State = WorkState(s)
	c.String(&w.Holder, MaxLabel)
	c.U64(&w.Fence)
	c.U64(&w.Beat)
	c.U32(&w.Attempts)
	c.String(&w.Reason, MaxReason)
}

// WorkTotals is what the queue has: U64 last number, U64 last fence, U64 items, U64 failed.
type WorkTotals struct {
	Last   uint64 // number of the newest item
	Fence  uint64 // newest
	Items  uint64 // waiting, taken and failed
	Failed uint64
}

// Fields implements record.Record.
func (t *WorkTotals) Fields(c *record.Codec) {
	c.U64(&t.Last)
	c.U64(&t.Fence)
	c.U64(&t.Items)
	c.U64(&t.Failed)
}

func workKey(n uint64) []byte           { return key(tableWork, n) }
func workNameKey(n string) []byte       { return named(tableWorkName, n) }
func waitingKey(n uint64) []byte        { return key(tableWaiting, n) }
func workTotalsKey() []byte             { return key(tableWorkTotals) }
func jobKey(name string) []byte         { return named(tableJob, name) }
func setWaiting(tx userfn.Tx, n uint64) { tx.Set(waitingKey(n), []byte{1}) }

// NewWork is an item to add: String name, Bytes data.
type NewWork struct {
	Name string
	Data []byte
}

// Fields implements record.Record.
func (w *NewWork) Fields(c *record.Codec) {
	c.String(&w.Name, MaxLabel)
	c.Bytes(&w.Data, MaxWorkData)
}

// workArg: List of items.
type workArg struct{ list []NewWork }

func (a *workArg) Fields(c *record.Codec) { record.Records(c, &a.list, MaxWorkAdd) }

// numbers is a result: List of U64.
type numbers struct{ list []number }

func (n *numbers) Fields(c *record.Codec) { record.Records(c, &n.list, MaxWorkAdd) }

// addWork adds items, all or none. An item whose name is in the queue is not added again: its
// number is that of the item that is there, in whatever state.
func addWork(tx userfn.Tx, a *workArg) (*numbers, error) {
	if _, err := loadBackend(tx); err != nil {
		return nil, err
	}
	var t WorkTotals
	if _, err := load(tx, workTotalsKey(), &t); err != nil {
		return nil, err
	}
	var r numbers
	for _, w := range a.list {
		if err := validLabel("work", w.Name); err != nil {
			return nil, err
		}
		var at number
		known, err := load(tx, workNameKey(w.Name), &at)
		if err != nil {
			return nil, err
		}
		if !known {
			if t.Items >= MaxWork {
				return nil, userfn.Errorf(userfn.CodeFull, "work %q: there are %d items, the most that there may be; none of the call was added", w.Name, t.Items)
			}
			t.Last++
			t.Items++
			at.v = t.Last
			if err := store(tx, workNameKey(w.Name), &at); err != nil {
				return nil, err
			}
			if err := store(tx, workKey(at.v), &Work{Number: at.v, Name: w.Name, Data: w.Data, State: WorkWaiting}); err != nil {
				return nil, err
			}
			setWaiting(tx, at.v)
		}
		r.list = append(r.list, at)
	}
	return &r, store(tx, workTotalsKey(), &t)
}

// takeArg: String holder, U64 number, 0: the oldest that waits, U64 fence, U64 beat.
type takeArg struct {
	holder string
	work   uint64
	fence  uint64
	beat   uint64
}

func (a *takeArg) Fields(c *record.Codec) {
	c.String(&a.holder, MaxLabel)
	c.U64(&a.work)
	c.U64(&a.fence)
	c.U64(&a.beat)
}

// takeWork gives an item to a holder, under a fence of its own. An item that another has is
// taken from the one who has that fence, and only if it has not moved its beat since.
func takeWork(tx userfn.Tx, a *takeArg) (*Work, error) {
	if err := validLabel("work: holder", a.holder); err != nil {
		return nil, err
	}
	n := a.work
	if n == 0 {
		base := key(tableWaiting)
		var oldest []byte
		tx.Range(base, userfn.PrefixEnd(base), 1, func(k, _ []byte) bool {
			oldest = append(oldest, k[len(base):]...)
			return true
		})
		if oldest == nil {
			return nil, userfn.Errorf(userfn.CodeNotFound, "work: none waits")
		}
		var err error
		if n, err = waitingNumber(oldest); err != nil {
			return nil, err
		}
	}
	w, err := loadWork(tx, n)
	switch {
	case err != nil:
		return nil, err
	case w.State == WorkFailed:
		return nil, userfn.Errorf(userfn.CodeConflict, "work %d, %q: it has failed: %s; retry it first", n, w.Name, w.Reason)
	case w.State == WorkTaken && (w.Fence != a.fence || w.Beat != a.beat):
		return nil, userfn.Errorf(userfn.CodeLease, "work %d, %q: %q has it under fence %d at beat %d, not fence %d at beat %d", n, w.Name, w.Holder, w.Fence, w.Beat, a.fence, a.beat)
	}
	var t WorkTotals
	if _, err := load(tx, workTotalsKey(), &t); err != nil {
		return nil, err
	}
	t.Fence++
	if err := store(tx, workTotalsKey(), &t); err != nil {
		return nil, err
	}
	tx.Delete(waitingKey(n))
	w.State, w.Holder, w.Fence, w.Beat = WorkTaken, a.holder, t.Fence, 0
	w.Attempts++
	return w, store(tx, workKey(n), w)
}

func loadWork(tx userfn.Tx, n uint64) (*Work, error) {
	var w Work
	ok, err := load(tx, workKey(n), &w)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, userfn.Errorf(userfn.CodeNotFound, "work %d: not found; it is done, or was dropped", n)
	}
	return &w, nil
}

// WorkEnd says how a holder leaves an item.
type WorkEnd uint8

// Ways to leave an item, in calls.
const (
	WorkBeat   WorkEnd = 1 // it goes on: the holder lives
	WorkDone   WorkEnd = 2 // it leaves the queue
	WorkFails  WorkEnd = 3 // it stays with the reason until somebody retries or drops it
	WorkReturn WorkEnd = 4 // it waits again
)

// endArg: U64 number, U64 fence, Enum end, String reason.
type endArg struct {
	work   uint64
	fence  uint64
	end    WorkEnd
	reason string
}

func (a *endArg) Fields(c *record.Codec) {
	c.U64(&a.work)
	c.U64(&a.fence)
	e := uint8(a.end)
	c.Enum(&e, uint8(WorkBeat), uint8(WorkReturn), "end of work")
	a.end = WorkEnd(e)
	c.String(&a.reason, MaxReason)
}

// endWork does what the holder of an item says, who names its fence. Of an item that is not
// there, WorkDone is no error: it was done.
func endWork(tx userfn.Tx, a *endArg) (*userfn.Empty, error) {
	if _, ok := tx.Get(workKey(a.work)); !ok && a.end == WorkDone {
		return &userfn.Empty{}, nil
	}
	w, err := loadWork(tx, a.work)
	if err != nil {
		return nil, err
	}
	repeated := a.end == WorkFails && w.State == WorkFailed || a.end == WorkReturn && w.State == WorkWaiting
	switch {
	case w.Fence == a.fence && repeated:
		return &userfn.Empty{}, nil
	case w.State != WorkTaken || w.Fence != a.fence:
		return nil, userfn.Errorf(userfn.CodeLease, "work %d, %q: it is %v, under fence %d of %q and no more under %d; leave it", w.Number, w.Name, w.State, w.Fence, w.Holder, a.fence)
	}
	switch a.end {
	case WorkBeat:
		w.Beat++
	case WorkDone:
		return &userfn.Empty{}, dropWork(tx, w)
	case WorkReturn:
		w.State = WorkWaiting
		setWaiting(tx, w.Number)
	case WorkFails:
		w.State, w.Reason = WorkFailed, a.reason
		if err := countFailed(tx, true); err != nil {
			return nil, err
		}
	}
	return &userfn.Empty{}, store(tx, workKey(w.Number), w)
}

// dropWork takes an item out of the queue.
func dropWork(tx userfn.Tx, w *Work) error {
	var t WorkTotals
	if _, err := load(tx, workTotalsKey(), &t); err != nil {
		return err
	}
	t.Items--
	tx.Delete(workKey(w.Number))
	tx.Delete(workNameKey(w.Name))
	return store(tx, workTotalsKey(), &t)
}

func countFailed(tx userfn.Tx, up bool) error {
	var t WorkTotals
	if _, err := load(tx, workTotalsKey(), &t); err != nil {
		return err
	}
	if up {
		t.Failed++
	} else {
		t.Failed--
	}
	return store(tx, workTotalsKey(), &t)
}

// retryArg: U64 number, Bool drop.
type retryArg struct {
	work uint64
	drop bool
}

func (a *retryArg) Fields(c *record.Codec) {
	c.U64(&a.work)
	c.Bool(&a.drop)
}

// retryWork has a failed item wait again, or drops it. Of an item that is not there, dropping
// is no error; one that waits or is taken is being retried.
func retryWork(tx userfn.Tx, a *retryArg) (*userfn.Empty, error) {
	if _, ok := tx.Get(workKey(a.work)); !ok && a.drop {
		return &userfn.Empty{}, nil
	}
	w, err := loadWork(tx, a.work)
	switch {
	case err != nil:
		return nil, err
	case w.State != WorkFailed && a.drop:
		return nil, userfn.Errorf(userfn.CodeInUse, "work %d, %q: it is %v; only what has failed is dropped", w.Number, w.Name, w.State)
	case w.State != WorkFailed:
		return &userfn.Empty{}, nil
	}
	if err := countFailed(tx, false); err != nil {
		return nil, err
	}
	if a.drop {
		return &userfn.Empty{}, dropWork(tx, w)
	}
	w.State = WorkWaiting
	setWaiting(tx, w.Number)
	return &userfn.Empty{}, store(tx, workKey(w.Number), w)
}
