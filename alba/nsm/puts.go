package nsm

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"

	"openvstorage/alba/nsm/record"
	"openvstorage/alba/nsm/userfn"
)

// maxPutsBytes bounds the encoded puts of a call of several.
const maxPutsBytes = 1 << 20

// puts gathers puts into calls, one call of a namespace at a time. A put that comes alone is
// a call at once. Puts that come while a call is under way go together in the next one: they
// take one entry of the log, and read and write the namespace's record and the counters
// once.
type puts struct {
	mu     sync.Mutex
	queues map[uint64][]*waitingPut // of a namespace with a call under way
}

// waitingPut is a put that waits for a call with others.
type waitingPut struct {
	body []byte // encoded
	done chan Outcome
}

// encodedPut is a putArg whose put is encoded.
type encodedPut struct {
	ns   uint64
	body []byte
}

func (p *encodedPut) Fields(c *record.Codec) {
	c.U64(&p.ns)
	c.Encoded(p.body)
}

// encodedPuts is a putManyArg whose puts are encoded.
type encodedPuts struct {
	ns   uint64
	puts [][]byte
}

func (p *encodedPuts) Fields(c *record.Codec) {
	c.U64(&p.ns)
	record.List(c, &p.puts, MaxPuts, func(c *record.Codec, body *[]byte) { c.Encoded(*body) })
}

// board has a put wait for the next call of its namespace. It returns nil if no call is under
// way: then the put is to be a call of its own, at once.
func (p *puts) board(ns uint64, body []byte) *waitingPut {
	p.mu.Lock()
	defer p.mu.Unlock()
	q, underWay := p.queues[ns]
	if !underWay {
		if p.queues == nil {
			p.queues = make(map[uint64][]*waitingPut)
		}
		p.queues[ns] = nil
		return nil
	}
	w := &waitingPut{body: body, done: make(chan Outcome, 1)}
	p.queues[ns] = append(q, w)
	return w
}

// leave takes back a put that still waits, and reports whether it did.
func (p *puts) leave(ns uint64, w *waitingPut) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	q := p.queues[ns]
	i := slices.Index(q, w)
	if i < 0 {
		return false
	}
	p.queues[ns] = slices.Delete(q, i, i+1)
	return true
}

// next ends a call and begins the next one, whose puts it returns; none if no put waits.
func (p *puts) next(ns uint64) []*waitingPut {
	p.mu.Lock()
	defer p.mu.Unlock()
	q := p.queues[ns]
	n, bytes := 0, 0
	for n < min(len(q), MaxPuts) && (n == 0 || bytes+len(q[n].body) <= maxPutsBytes) {
		bytes += len(q[n].body)
		n++
	}
	if n == 0 {
		delete(p.queues, ns)
		return nil
	}
	p.queues[ns] = q[n:]
	return q[:n:n]
}

// put makes a put, as a call of its own or with others in the next call of its namespace.
func (c *Client) put(ctx context.Context, ns uint64, body []byte) (PutResult, error) {
	w := c.puts.board(ns, body)
	if w == nil {
		defer c.depart(ns)
		return c.putOne(ctx, ns, body)
	}
	select {
	case o := <-w.done:
		return o.PutResult, o.Err
	case <-ctx.Done():
	}
	if c.puts.leave(ns, w) {
		return PutResult{}, fmt.Errorf("put into namespace %d: nothing was put: %w", ns, ctx.Err())
	}
	return PutResult{}, fmt.Errorf("put into namespace %d: %w: it may or may not take effect", ns, ctx.Err())
}

// depart ends a call, and makes calls of the puts that wait until none does.
func (c *Client) depart(ns uint64) {
	list := c.puts.next(ns)
	if len(list) == 0 {
		return
	}
	go func() {
		for ; len(list) > 0; list = c.puts.next(ns) {
			c.putTogether(ns, list)
			// Callers that have just been answered may put again at once. Let them
			// do so, or all of them would wait for a call with the few puts that
			// came meanwhile.
			runtime.Gosched()
		}
	}()
}

// putTogether makes one call of several puts. The call does not end when one of their
// callers gives up.
func (c *Client) putTogether(ns uint64, list []*waitingPut) {
	ctx := context.Background()
	if len(list) > 1 {
		bodies := make([][]byte, len(list))
		for i, w := range list {
			bodies[i] = w.body
		}
		result, err := c.putAll(ctx, ns, bodies)
		var refused *userfn.Error
		switch {
		case err == nil:
			for i, w := range list {
				w.done <- result[i]
			}
			return
		case !errors.As(err, &refused): // any part may take effect
			for _, w := range list {
				w.done <- Outcome{Err: err}
			}
			return
		}
		// They were too much for one call, or one met a broken record. Each is
		// made by itself, to find out which.
	}
	for _, w := range list {
		r, err := c.putOne(ctx, ns, w.body)
		w.done <- Outcome{PutResult: r, Err: err}
	}
}

func (c *Client) putOne(ctx context.Context, ns uint64, body []byte) (r PutResult, err error) {
	err = c.call(ctx, namePut, &encodedPut{ns, body}, &r)
	return r, err
}

func (c *Client) putAll(ctx context.Context, ns uint64, bodies [][]byte) ([]Outcome, error) {
	var r outcomes
	if err := c.call(ctx, namePutMany, &encodedPuts{ns, bodies}, &r); err != nil {
		return nil, err
	}
	if len(r.list) != len(bodies) {
		return nil, fmt.Errorf("%s: %d outcomes of %d puts", namePutMany, len(r.list), len(bodies))
	}
	return r.list, nil
}

// Put is one put of several: see Client.Put for what mode and version say.
type Put struct {
	Mode    Mode
	Version uint64
	Object  *Object
}

func (p *Put) encode() ([]byte, error) {
	if p.Mode > ReplaceIf { // a manager would take it for a newer release's, and the whole call
		return nil, userfn.Errorf(userfn.CodeInvalid, "object %q: put mode %d does not exist", p.Object.Name, p.Mode)
	}
	body := putBody{mode: p.Mode, ifIs: p.Version, object: *p.Object}
	body.object.ManifestSize = uint32(len(p.Object.Manifest))
	body.object.Version, body.object.Revision, body.object.Time = 0, 0, 0
	b, err := record.EncodeFields(&body)
	if err != nil {
		return nil, userfn.FromRecord(userfn.CodeInvalid, fmt.Sprintf("object %q", p.Object.Name), err)
	}
	return b, nil
}

// PutMany puts up to MaxPuts objects in one call, each as Put does and each for itself: an
// outcome says what became of each. An error is that of the whole call, or says that the
// puts are too much for one call. An *Error says that nothing was put.
func (c *Client) PutMany(ctx context.Context, ns uint64, puts []Put) ([]Outcome, error) {
	outcomes := make([]Outcome, len(puts))
	var bodies [][]byte
	var sent []int
	for i := range puts {
		body, err := puts[i].encode()
		if err != nil {
			outcomes[i].Err = err
			continue
		}
		bodies, sent = append(bodies, body), append(sent, i)
	}
	if len(sent) == 0 && len(puts) > 0 {
		return outcomes, ctx.Err()
	}
	told, err := c.putAll(ctx, ns, bodies)
	if err != nil {
		return nil, err
	}
	for k, i := range sent {
		outcomes[i] = told[k]
	}
	return outcomes, nil
}
