package sim

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"openvstorage/arakoon"

	"github.com/google/uuid"
)

const (
	thinking = 60 * time.Millisecond // on average, between two requests of a client
	patience = 2 * time.Second       // of a client with a request
)

// client does one request after another, at whichever member seems to lead.
type client struct {
	group  *group
	number int
	rng    *rand.Rand
	at     *machine
	tokens int
	seen   [pairs]content // what it was told last

	session uuid.UUID // of the writes that are retried; zero: none is open
	request uint64
	answers *output // of the request that is repeated, as its answer was lost
}

func newClient(g *group, number int) *client {
	return &client{group: g, number: number, rng: rand.New(rand.NewPCG(g.plan.seed, 100+uint64(number)))}
}

// run goes on until the history's time is over.
func (c *client) run() {
	for c.group.wait(time.Duration(c.rng.Int64N(int64(2 * thinking)))) {
		switch p := c.rng.IntN(100); {
		case p < 30:
			c.read(c.some(get))
		case p < 40:
			c.read(c.some(getBoth))
		case p < 45:
			c.behind()
		case p < 50:
			c.local()
		case p < 75:
			c.write(c.some([]kind{set, set, remove, testAndSet, testAndSet, both, moveOver, add, add}[c.rng.IntN(9)]))
		default:
			c.exactly(c.some([]kind{set, remove, both, add, add, add}[c.rng.IntN(6)]))
		}
	}
}

// token is a text that is used once in a history.
func (c *client) token() string {
	c.tokens++
	return fmt.Sprintf("%d.%d", c.number, c.tokens)
}

func (c *client) some(k kind) input {
	// A few pairs are asked for more often than the others.
	in := input{kind: k, pair: min(c.rng.IntN(pairs), c.rng.IntN(pairs)), side: c.rng.IntN(2)}
	switch k {
	case set, add:
		in.wanted = some(c.token())
	case testAndSet, both:
		in.expected = c.seen[in.pair][in.side]
		if in.wanted = some(c.token()); k == testAndSet && c.rng.IntN(4) == 0 {
			in.wanted = value{}
		}
		in.other = some(c.token())
	case moveOver:
		in.other = some(c.token())
	}
	if k != both && k != moveOver {
		in.other = value{}
	}
	in.newer = k == add && c.rng.IntN(2) == 0
	return in
}

// reached is a node that takes requests, with its life.
func (c *client) reached() (*arakoon.Node, *life) {
	if c.at != nil {
		if n, l := c.at.node(); n != nil {
			return n, l
		}
	}
	all := c.group.all()
	c.at = all[c.rng.IntN(len(all))]
	return c.at.node()
}

// elsewhere makes the next request go to another member.
func (c *client) elsewhere(n *arakoon.Node) {
	c.at = nil
	if hint := c.group.hint(n); hint != nil && c.rng.IntN(4) > 0 {
		c.at = hint
	}
}

// leaders picks one of those that believe that they lead: one of them may have been cut
// off, and must not answer.
func (c *client) leaders() {
	var list []*machine
	for _, m := range c.group.all() {
		if n, _ := m.node(); n != nil && n.Leading() {
			list = append(list, m)
		}
	}
	if len(list) > 1 {
		c.at = list[c.rng.IntN(len(list))]
	}
}

func (c *client) read(in input) {
	c.leaders()
	n, l := c.reached()
	if n == nil {
		c.at = nil
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	call := c.group.record.tick()
	var out output
	var err error
	if in.kind == get {
		out, err = c.value(ctx, n, arakoon.Consistent, key(in.pair, in.side))
	} else {
		var both [][]byte
		if both, err = n.MultiGet(ctx, arakoon.Consistent, key(in.pair, 0), key(in.pair, 1)); err == nil {
			out = output{ok: true, values: [2]value{valueOf(both[0]), valueOf(both[1])}}
		}
	}
	if err != nil || l.over() {
		c.elsewhere(n)
		return
	}
	c.group.record.done(c.number, call, in, out)
	if in.kind == get {
		c.seen[in.pair][in.side] = out.values[0]
	} else {
		c.seen[in.pair] = out.values
	}
}

func (c *client) value(ctx context.Context, n *arakoon.Node, how arakoon.Consistency, k []byte) (output, error) {
	v, err := n.Get(ctx, how, k)
	var absent *arakoon.ErrNotFound
	if errors.As(err, &absent) {
		return output{ok: true}, nil
	}
	return output{ok: true, values: [2]value{some(string(v))}}, err
}

// behind writes, and reads from any member with the index of the write.
func (c *client) behind() {
	in := c.some(set)
	index := c.write(in)
	all := c.group.all()
	n, l := all[c.rng.IntN(len(all))].node()
	if index == 0 || n == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if out, err := c.value(ctx, n, arakoon.AtLeast(index), key(in.pair, in.side)); err == nil && !l.over() {
		c.group.record.atLeast(key(in.pair, in.side), out.values[0], index)
	}
}

// local reads what some member has, with the time as of which it has everything.
func (c *client) local() {
	in, all := c.some(get), c.group.all()
	n, l := all[c.rng.IntN(len(all))].node()
	if n == nil {
		return
	}
	asOf, known := n.AsOf()
	out, err := c.value(context.Background(), n, arakoon.Local, key(in.pair, in.side))
	if known && err == nil && !l.over() {
		c.group.record.local(key(in.pair, in.side), out.values[0], asOf)
	}
}

// write does a write once, and returns its index, 0 if it was not done.
func (c *client) write(in input) uint64 {
	n, l := c.reached()
	if n == nil {
		c.at = nil
		return 0
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	call := c.group.record.tick()
	index, results, err := n.Write(ctx, in.sequence())
	out, known := c.outcome(in, results, err)
	switch {
	case l.over() || errors.Is(err, arakoon.ErrUnknownOutcome):
		c.group.record.done(c.number, call, in, output{unknown: true})
	case known:
		c.finished(l, call, in, out, index)
		return index
	}
	// All other errors say that nothing was done. If something was, a read shows it.
	c.elsewhere(n)
	return 0
}

// outcome is the output of a write that was applied, whatever came of it.
func (c *client) outcome(in input, results []arakoon.Result, err error) (out output, known bool) {
	var failed *arakoon.ErrAssert
	var absent *arakoon.ErrNotFound
	var other *arakoon.Error
	switch {
	case err == nil:
		return in.told(results), true
	case errors.As(err, &failed), errors.As(err, &absent):
		return output{}, true
	case errors.As(err, &other):
		c.group.watch.violation("client %d: %v: %v", c.number, in, err)
	}
	return output{}, false
}

func (c *client) finished(l *life, call int64, in input, out output, index uint64) {
	c.group.record.done(c.number, call, in, out)
	if index > 0 {
		c.group.watch.answered(l.id, index)
		c.group.record.wrote(index, in, out)
	}
}

// exactly does a write in a session, again and again until the outcome is known, at any
// members: it must happen once.
func (c *client) exactly(in input) {
	if !c.open() {
		return
	}
	c.request++
	call := c.group.record.tick()
	tried := false
	if c.rng.IntN(4) == 0 {
		c.twin(in)
	}
	for end := time.Now().Add(3 * patience); time.Now().Before(end) && !c.group.ended(); {
		n, l := c.reached()
		if n == nil {
			c.at = nil
			time.Sleep(thinking)
			continue
		}
		ctx, cancel := context.WithTimeout(context.Background(), patience/4)
		index, results, err := n.ResumeSession(c.session, c.request).Retry(ctx, in.sequence())
		cancel()
		if out, known := c.outcome(in, results, err); known && !l.over() {
			if again := c.answers; again != nil && *again != out {
				c.group.watch.violation("client %d: %v was answered by %v, and its repetition by %v", c.number, in, *again, out)
			}
			if c.rng.IntN(6) == 0 {
				c.answers, tried = &out, true // the answer is lost
				continue
			}
			c.answers = nil
			c.finished(l, call, in, out, index)
			return
		}
		if level := (*arakoon.LevelError)(nil); errors.As(err, &level) {
			in.newer = false // both do the same; nothing was done
			continue
		}
		tried = tried || l.over() || errors.Is(err, arakoon.ErrUnknownOutcome)
		c.elsewhere(n)
		time.Sleep(time.Duration(c.rng.Int64N(int64(thinking))))
	}
	if tried {
		c.group.record.done(c.number, call, in, output{unknown: true})
	}
	c.answers = nil
	// What is under way in the session may come late, and a new request would hide it.
	c.session = uuid.Nil
}

// twin sends the request a second time, on its own way and at some time: nobody waits for
// its answer, and it may come when the session is at later requests.
func (c *client) twin(in input) {
	all := c.group.all()
	n, l := all[c.rng.IntN(len(all))].node()
	id, request, late := c.session, c.request, time.Duration(c.rng.Int64N(int64(3*thinking)))
	if n == nil {
		return
	}
	c.group.trials.Go(func() {
		if c.group.wait(late); l.over() {
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		_, _, _ = n.ResumeSession(id, request).Retry(ctx, in.sequence())
	})
}

// open opens a session unless one is open.
func (c *client) open() bool {
	if c.session != uuid.Nil {
		return true
	}
	n, l := c.reached()
	if n == nil {
		c.at = nil
		return false
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	s, err := n.NewSession(ctx)
	if err != nil || l.over() {
		c.elsewhere(n)
		return false
	}
	c.session, c.request = s.ID()
	return true
}
