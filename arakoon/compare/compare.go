// Package compare compares the states of a group's members: all of them hash their state at
// the same entry of the log, and equal logs must have made equal states.
//
// A difference halts nothing. Nobody can tell from two hashes which member is wrong, and
// with several members the wrong one may be the majority's: a member that is halted by a vote
// could be the last good copy. The group also goes on to be of use: the log is the same
// everywhere, and each key that is read comes from one member, as it did before the difference
// was noticed. So it is logged as an error, shown, and left to a person, who compares dumps and
// replaces the member that is wrong.
package compare

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"openvstorage/arakoon"
)

// Every is how often a group's states are compared in the background.
const Every = time.Hour

// Patience is how long each of the other members may take to answer.
const Patience = 10 * time.Minute

// Node is what a Checker needs of the member in this process.
type Node interface {
	Status() arakoon.Status
	Members() arakoon.Members
	Leading() bool
	Hash(ctx context.Context) (index uint64, sum [32]byte, err error)
}

var _ Node = (*arakoon.Node)(nil)

// Ask asks another member for its hash at an index, and waits until that has it. Package
// kvclient has it.
type Ask func(ctx context.Context, member, index uint64) (sum [32]byte, err error)

// Options are for New. Group, Node and Logger must be given.
type Options struct {
	Group  string
	Node   Node
	Ask    Ask // nil: no other member can be asked
	Logger *slog.Logger
	Every  time.Duration // default Every
}

// Result is what a comparison found.
type Result struct {
	Index   uint64
	Time    time.Time // it ended, by this member's clock; for people
	Members []Hash    // this one first, the others ascending
}

// Hash is that of a member's state.
type Hash struct {
	Member uint64
	Sum    [32]byte
	Err    error // why there is none
}

// Equal reports whether all members that answered have the same state.
func (r Result) Equal() bool {
	for _, h := range r.Members {
		if h.Err == nil && h.Sum != r.Members[0].Sum {
			return false
		}
	}
	return true
}

// complete reports whether all members answered.
func (r Result) complete() bool {
	return !slices.ContainsFunc(r.Members, func(h Hash) bool { return h.Err != nil })
}

// Wrong are the members that answered with another hash than most, and than the first member of
// the result if there is no most.
func (r Result) Wrong() (members []uint64) {
	count := map[[32]byte]int{}
	for _, h := range r.Members {
		if h.Err == nil {
			count[h.Sum]++
		}
	}
	right := r.Members[0].Sum
	for _, h := range r.Members {
		if h.Err == nil && count[h.Sum] > count[right] {
			right = h.Sum
		}
	}
	for _, h := range r.Members {
		if h.Err == nil && h.Sum != right {
			members = append(members, h.Member)
		}
	}
	return members
}

// Checker compares the states of one group. Safe for concurrent use.
type Checker struct {
	opt Options

	busy chan struct{} // one comparison at a time: a second one waits for its own

	mu    sync.Mutex
	last  *Result
	rests uint64 // the group was applied so far when all members were found equal; 0: they were not
}

// New makes a checker.
func New(opt Options) *Checker {
	if opt.Every == 0 {
		opt.Every = Every
	}
	return &Checker{opt: opt, busy: make(chan struct{}, 1)}
}

// Last is what was found last, false if nothing was.
func (c *Checker) Last() (Result, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.last == nil {
		return Result{}, false
	}
	return *c.last, true
}

// Compare compares the states now. It must be called where the group is led. The error says
// that there is no result; that of a member that did not answer is in the result.
func (c *Checker) Compare(ctx context.Context) (Result, error) {
	select {
	case c.busy <- struct{}{}:
		defer func() { <-c.busy }()
	case <-ctx.Done():
		return Result{}, ctx.Err()
	}
	index, sum, err := c.opt.Node.Hash(ctx)
	if err != nil {
		return Result{}, fmt.Errorf("hash of the state of group %s: %w", c.opt.Group, err)
	}
	self := c.opt.Node.Status().ID
	r := Result{Index: index, Members: []Hash{{Member: self, Sum: sum}}}
	for _, id := range c.opt.Node.Members().All() {
		if id != self {
			r.Members = append(r.Members, Hash{Member: id})
		}
	}
	var all sync.WaitGroup
	for i := range r.Members[1:] {
		h := &r.Members[i+1]
		all.Go(func() { h.Sum, h.Err = c.ask(ctx, h.Member, index) })
	}
	all.Wait()
	if err := ctx.Err(); err != nil {
		return Result{}, err
	}
	r.Time = time.Now()
	c.note(r)
	c.mu.Lock()
	if c.rests = 0; r.Equal() && r.complete() {
		c.rests = index
	}
	c.mu.Unlock()
	return r, nil
}

var errNobody = errors.New("this process has no way to ask another member")

func (c *Checker) ask(ctx context.Context, member, index uint64) ([32]byte, error) {
	if c.opt.Ask == nil {
		return [32]byte{}, errNobody
	}
	ctx, cancel := context.WithTimeout(ctx, Patience)
	defer cancel()
	return c.opt.Ask(ctx, member, index)
}

func (c *Checker) note(r Result) {
	c.mu.Lock()
	c.last = &r
	c.mu.Unlock()
	for _, h := range r.Members {
		switch {
		case h.Err != nil:
			c.opt.Logger.Warn("the state of a member was not compared", "group", c.opt.Group, "member", h.Member, "index", r.Index, "err", h.Err)
		case h.Sum != r.Members[0].Sum:
			c.opt.Logger.Error("MEMBERS OF A GROUP HAVE DIFFERENT STATES", "group", c.opt.Group, "index", r.Index, "member", h.Member, "hash", fmt.Sprintf("%x", h.Sum),
				"other member", r.Members[0].Member, "its hash", fmt.Sprintf("%x", r.Members[0].Sum), "cure", "take a backup, stop each member in turn and compare what `ovs arakoon dump state` says of it; then replace the wrong member: remove its host, and let another one join")
		}
	}
}

// Run compares every now and then, while this member leads and there are others, until ctx
// ends. It is for a group that can have several members: one that is alone has nobody to be
// compared with. While nothing was written since all members were found equal it does nothing.
func (c *Checker) Run(ctx context.Context) {
	tick := time.NewTicker(c.opt.Every)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		if !c.opt.Node.Leading() || len(c.opt.Node.Members().All()) < 2 || c.resting() {
			continue
		}
		_, err := c.Compare(ctx)
		var level *arakoon.LevelError
		if errors.As(err, &level) { // that of the group forbids it, which is no fault
			c.opt.Logger.Debug("the states of a group's members cannot be compared before its level is raised", "group", c.opt.Group, "err", err)
		} else if err != nil && ctx.Err() == nil {
			c.opt.Logger.Warn("the states of a group's members were not compared, to be tried again", "group", c.opt.Group, "err", err)
		}
	}
}

// resting reports whether nothing was written since all members were found equal.
func (c *Checker) resting() bool {
	applied := c.opt.Node.Status().Applied
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.rests != 0 && applied == c.rests
}
