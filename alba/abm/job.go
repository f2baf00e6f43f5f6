package abm

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"

	"openvstorage/alba/nsm/record"
	"openvstorage/alba/nsm/userfn"
)

// Job is how far a long work has come. It is there from the job's begin until it is cleared,
// and its name is free then.
type Job struct {
	Name    string
	Version uint64 // of the progress, from 1 on
	Done    uint64 // of Total, in whatever the job counts
	Total   uint64
	Cursor  []byte // where to go on; opaque here
}

// Fields implements record.Record: U64 version, U64 done, U64 total, Bytes cursor.
func (j *Job) Fields(c *record.Codec) {
	c.U64(&j.Version)
	c.U64(&j.Done)
	c.U64(&j.Total)
	c.Bytes(&j.Cursor, MaxWorkData)
}

func (j *Job) same(k *Job) bool {
	return j.Done == k.Done && j.Total == k.Total && bytes.Equal(j.Cursor, k.Cursor)
}

// jobArg: String name, Bool clear, then the job, whose version is the one that it replaces.
type jobArg struct {
	clear bool
	Job
}

func (a *jobArg) Fields(c *record.Codec) {
	c.String(&a.Name, MaxLabel)
	c.Bool(&a.clear)
	a.Job.Fields(c)
}

// progress replaces the progress of a job, if it has the version named (0: there is none), or
// clears it. What was entered already is no error.
func progress(tx userfn.Tx, a *jobArg) (*number, error) {
	if err := validLabel("job", a.Name); err != nil {
		return nil, err
	}
	var j Job
	known, err := load(tx, jobKey(a.Name), &j)
	switch {
	case err != nil:
		return nil, err
	case a.clear && !known:
		return &number{0}, nil
	case !a.clear && j.Version == a.Version+1 && j.same(&a.Job):
		return &number{j.Version}, nil
	case j.Version != a.Version:
		return nil, userfn.Errorf(userfn.CodeConflict, "job %q: its progress has version %d, not %d; somebody else works on it", a.Name, j.Version, a.Version)
	case a.clear:
		tx.Delete(jobKey(a.Name))
		return &number{0}, nil
	case !known && rows(tx, tableJob, MaxJobs) >= MaxJobs:
		return nil, userfn.Errorf(userfn.CodeFull, "job %q: there are %d jobs, the most that there may be", a.Name, MaxJobs)
	}
	j = a.Job
	j.Version++
	return &number{j.Version}, store(tx, jobKey(a.Name), &j)
}

// Queue is a Client's work queue and the progress of jobs.
type Queue struct{ *Client }

// Progress enters how far a job has come. j.Version is the version that the caller saw last,
// 0 to begin the job. It returns the new version. ErrConflict: another has entered progress
// since, or the job was cleared; ErrFull: there are MaxJobs jobs.
func (c Queue) Progress(ctx context.Context, j Job) (uint64, error) {
	var n number
	err := c.call(ctx, nameProgress, &jobArg{Job: j}, &n)
	return n.v, err
}

// ClearJob forgets a job whose progress has the version named (else ErrConflict). One that is
// gone is no error.
func (c Queue) ClearJob(ctx context.Context, name string, version uint64) error {
	return c.call(ctx, nameProgress, &jobArg{clear: true, Job: Job{Name: name, Version: version}}, &number{})
}

// Jobs returns all jobs, in order of name.
func (c Queue) Jobs(ctx context.Context, how userfn.Consistency) ([]Job, error) {
	base := key(tableJob)
	pairs, err := c.list(ctx, base, nil, MaxJobs, how)
	if err != nil {
		return nil, err
	}
	list := make([]Job, len(pairs))
	for i, p := range pairs {
		list[i].Name = string(p.Key[len(base):])
		if err := decode(p.Key, p.Value, &list[i]); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// AddWork adds up to MaxWorkAdd items to the queue, all or none, and returns their numbers. An
// item whose name is in the queue is not added again. ErrFull: MaxWork items are in it.
func (c Queue) AddWork(ctx context.Context, list []NewWork) ([]uint64, error) {
	var r numbers
	if err := c.call(ctx, nameAddWork, &workArg{list}, &r); err != nil {
		return nil, err
	}
	out := make([]uint64, len(r.list))
	for i, n := range r.list {
		out[i] = n.v
	}
	return out, nil
}

// TakeWork gives the oldest item that waits to holder. ErrNotFound: none waits. Its holder
// calls KeepWork more often than others wait before they take an item over. After an error
// of the Caller an item may be taken by a holder that does not know it: it is taken over as
// that of one that has died.
func (c Queue) TakeWork(ctx context.Context, holder string) (Work, error) {
	var w Work
	err := c.call(ctx, nameTakeWork, &takeArg{holder: holder}, &w)
	return w, err
}

// TakeOver gives an item to holder whose beat the caller has seen stand still for as long as
// was agreed on, by its own monotonic clock; w is the item as it saw it. ErrLease: its holder
// has shown that it lives, or another has it now.
func (c Queue) TakeOver(ctx context.Context, w Work, holder string) (Work, error) {
	var now Work
	err := c.call(ctx, nameTakeWork, &takeArg{holder: holder, work: w.Number, fence: w.Fence, beat: w.Beat}, &now)
	return now, err
}

// KeepWork shows that the holder of an item lives. ErrLease: it holds the item no more.
func (c Queue) KeepWork(ctx context.Context, w Work) error {
	return c.do(ctx, nameEndWork, &endArg{work: w.Number, fence: w.Fence, end: WorkBeat})
}

// FinishWork takes an item that is done out of the queue. ErrLease: another holds it now, who
// does it again.
func (c Queue) FinishWork(ctx context.Context, w Work) error {
	return c.do(ctx, nameEndWork, &endArg{work: w.Number, fence: w.Fence, end: WorkDone})
}

// FailWork leaves an item in the queue as failed, with the first MaxReason bytes of reason.
func (c Queue) FailWork(ctx context.Context, w Work, reason string) error {
	return c.do(ctx, nameEndWork, &endArg{work: w.Number, fence: w.Fence, end: WorkFails, reason: reason[:min(len(reason), MaxReason)]})
}

// ReturnWork has an item wait again, for somebody else.
func (c Queue) ReturnWork(ctx context.Context, w Work) error {
	return c.do(ctx, nameEndWork, &endArg{work: w.Number, fence: w.Fence, end: WorkReturn})
}

// RetryWork has a failed item wait again.
func (c Queue) RetryWork(ctx context.Context, number uint64) error {
	return c.do(ctx, nameRetryWork, &retryArg{work: number})
}

// DropWork takes a failed item out of the queue (ErrInUse: it has not failed).
func (c Queue) DropWork(ctx context.Context, number uint64) error {
	return c.do(ctx, nameRetryWork, &retryArg{work: number, drop: true})
}

// Work returns up to limit items of the queue (at most MaxPage), from the one behind after, in
// order of number: the order in which they were added.
func (c Queue) Work(ctx context.Context, after uint64, limit int, how userfn.Consistency) ([]Work, error) {
	pairs, err := c.list(ctx, key(tableWork), binary.BigEndian.AppendUint64(nil, after), limit, how)
	if err != nil {
		return nil, err
	}
	list := make([]Work, len(pairs))
	for i, p := range pairs {
		if err := decode(p.Key, p.Value, &list[i]); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// WorkTotals returns what the queue has. No item is read for it.
func (c Queue) WorkTotals(ctx context.Context, how userfn.Consistency) (WorkTotals, error) {
	var t WorkTotals
	_, err := c.one(ctx, workTotalsKey(), how, &t)
	return t, err
}

// waitingNumber reads the number of an item from the key that says that it waits.
func waitingNumber(k []byte) (uint64, error) {
	if len(k) != 8 {
		return 0, userfn.Stop(fmt.Sprintf("waiting work %x", k), fmt.Errorf("%w: a number of %d bytes", record.ErrCorrupt, len(k)))
	}
	return binary.BigEndian.Uint64(k), nil
}
