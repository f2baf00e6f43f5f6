package faultdisk

import (
	"math/bits"
	"path"
	"strings"
	"sync"

	"openvstorage/internal/bell"
)

// Op is a set of kinds of operation.
type Op uint32

// The kinds of operation, one bit each.
const (
	Open     Op = 1 << iota
	Read        // ReadAt
	TryRead     // TryReadAt
	Write       // WriteAt and WritevAt
	Datasync    // Datasync
	Sync        // Sync
	Prewrite
	Writeback
	Truncate
	Size
	Close
	Rename // matched by either name
	Link   // matched by either name
	Remove
	RemoveAll
	Mkdir
	ReadDir
	Stat
	SyncDir
	Lock
	Statfs
	Private
	Allocate

	numOps = iota
	Any    = Op(1<<numOps - 1)
)

var opNames = [numOps]string{
	"open", "read", "tryread", "write", "datasync", "sync", "prewrite", "writeback", "truncate", "size", "close",
	"rename", "link", "remove", "removeall", "mkdir", "readdir", "stat", "syncdir", "lock", "statfs", "private", "allocate",
}

func (o Op) String() string {
	var names []string
	for left := o & Any; left != 0; left &= left - 1 {
		names = append(names, opNames[bits.TrailingZeros32(uint32(left))])
	}
	return strings.Join(names, "|")
}

func (o Op) index() int { return bits.TrailingZeros32(uint32(o)) }

// Rule says when something goes wrong, and what.
type Rule struct {
	Ops  Op     // which kinds; 0 is Any
	Path string // which paths; see Match
	// Where, if not nil, is asked too, with no more than the path: it must not
	// touch the disk.
	Where func(path string) bool
	// Of the operations that match, Skip go through; then the rule fires
	// Times times, or for ever if Times is 0.
	Skip, Times int

	// Before runs first, with no lock held: it may wait (see Gate), take a
	// crash image, or change rules.
	Before func(op Op, path string)
	// Err makes the operation fail. The error is wrapped with operation and path.
	Err error
	// Short is how many bytes a failing read, write or prewrite does first.
	Short int64
	// Drop makes a write, prewrite, sync or directory operation report success
	// and do nothing, as a lying disk does.
	Drop bool
	// Corrupt gets what a read has read, or a copy of what a write is to
	// write, and may change it.
	Corrupt func(p []byte)
}

// decides says whether the rule has an effect beyond Before.
func (r *Rule) decides() bool { return r.Err != nil || r.Drop || r.Corrupt != nil }

// Match reports whether a pattern matches a path: the empty pattern all
// paths; one that ends in "/..." the directory and all below it; one without a
// slash the last part of the path, by path.Match; any other the whole path, by
// path.Match. A malformed pattern panics: it is a mistake in a test.
func Match(pattern, name string) bool {
	name = path.Clean(name)
	if pattern == "" {
		return true
	}
	if dir, ok := strings.CutSuffix(pattern, "/..."); ok {
		return below(dir, name)
	}
	if !strings.Contains(pattern, "/") {
		name = path.Base(name)
	}
	ok, err := path.Match(pattern, name)
	if err != nil {
		panic("faultdisk: " + pattern + ": " + err.Error())
	}
	return ok
}

func below(dir, name string) bool {
	dir = strings.TrimSuffix(dir, "/")
	return name == dir || strings.HasPrefix(name, dir+"/")
}

// Injection is a rule at work.
type Injection struct {
	fs    *FS
	rule  Rule
	seen  int // both guarded by fs.mu
	fired int
}

// Inject adds a rule. It applies to operations that start from now on, on
// files already open too.
func (d *FS) Inject(r Rule) *Injection {
	if r.Ops == 0 {
		r.Ops = Any
	}
	Match(r.Path, "x") // a malformed pattern panics here, not in some goroutine
	i := &Injection{fs: d, rule: r}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.rules = append(d.rules, i)
	d.active.Store(true)
	return i
}

// Remove takes the rule away.
func (i *Injection) Remove() {
	d := i.fs
	d.mu.Lock()
	defer d.mu.Unlock()
	var left []*Injection
	for _, o := range d.rules {
		if o != i {
			left = append(left, o)
		}
	}
	d.rules = left
	d.active.Store(len(left) > 0)
}

// Fired returns how often the rule has fired.
func (i *Injection) Fired() int {
	i.fs.mu.Lock()
	defer i.fs.mu.Unlock()
	return i.fired
}

// Clear takes all rules away. Quotas stay.
func (d *FS) Clear() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.rules = nil
	d.active.Store(false)
}

var noEffect = &Rule{}

// consult runs the Before functions that fire on an operation and returns the
// rule that decides it, or one without effect.
func (d *FS) consult(op Op, names ...string) *Rule {
	if !d.active.Load() {
		return noEffect
	}
	var before []func(Op, string)
	decided := noEffect
	d.mu.Lock()
	for _, i := range d.rules {
		r := &i.rule
		if r.Ops&op == 0 || !r.concerns(names) {
			continue
		}
		i.seen++
		if i.seen <= r.Skip || r.Times > 0 && i.fired >= r.Times {
			continue
		}
		i.fired++
		if r.Before != nil {
			before = append(before, r.Before)
		}
		if decided == noEffect && r.decides() {
			decided = r
		}
	}
	d.mu.Unlock()
	for _, f := range before {
		f(op, names[0])
	}
	return decided
}

// concerns says whether the rule is about one of an operation's names.
func (r *Rule) concerns(names []string) bool {
	for _, n := range names {
		if Match(r.Path, n) && (r.Where == nil || r.Where(n)) {
			return true
		}
	}
	return false
}

// Gate holds operations up: use its Wait as a rule's Before.
type Gate struct {
	arrived  bell.Bell
	released chan struct{}
	once     sync.Once
}

// NewGate returns a closed gate.
func NewGate() *Gate {
	return &Gate{released: make(chan struct{})}
}

// Wait returns when the gate has been opened.
func (g *Gate) Wait(Op, string) {
	g.arrived.Ring()
	<-g.released
}

// Arrived delivers a value once an operation waits at the gate, or has passed it.
func (g *Gate) Arrived() <-chan struct{} { return g.arrived.Rung() }

// Open lets all operations pass, now and later.
func (g *Gate) Open() { g.once.Do(func() { close(g.released) }) }
