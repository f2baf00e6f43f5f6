// Package fault is a decorator for tests: a store whose calls fail, or wait, when a rule
// says so.
//
// A rule makes a call fail without effect, after its whole effect, or before an effect
// that comes late. These are the outcomes that the contract allows for a call that
// fails: no Put is torn. A rule's gate holds calls until the test opens it.
package fault

import (
	"context"
	"path"
	"slices"
	"sync"

	"openvstorage/backend"
	"openvstorage/internal/faults"
	"openvstorage/internal/gate"
)

// Op is a method of backend.Store or backend.Namespace.
type Op string

// The methods.
const (
	CreateNamespace Op = "create namespace"
	DeleteNamespace Op = "delete namespace"
	ListNamespaces  Op = "list namespaces"
	Usage           Op = "usage"
	Put             Op = "put"
	PutIf           Op = "put if"
	Get             Op = "get"
	Stat            Op = "stat"
	Delete          Op = "delete"
	List            Op = "list"
)

// Rule says which calls are hit and what happens to them. The zero value of a
// field matches everything or does nothing.
type Rule struct {
	Ops       []Op   // methods
	Namespace string // a pattern of path.Match
	Object    string // a pattern of path.Match; a Delete matches by any of its names, a List by its prefix

	Skip  int // this many matching calls pass first
	Count int // then this many are hit; 0: all

	Err   error       // what the call returns; nil: only the gate matters
	After bool        // gate and error come after the call has succeeded, not before it begins
	Late  bool        // the error comes at once, and a change is made when the next one begins
	Draw  func() bool // hits a matching call if it returns true; nil: always; it may be called concurrently
	Gate  *gate.Gate  // holds the call
}

// Injected is a rule at work.
type Injected = faults.Injected[Rule]

// Store decorates a store. Safe for concurrent use.
type Store struct {
	inner backend.Store

	rules faults.Rules[Rule] // the first that hits a call decides

	order sync.Mutex // held while late changes are made
	late  []func()
}

// New returns inner with no rules.
func New(inner backend.Store) *Store { return &Store{inner: inner} }

// Add puts a rule behind those that are there.
func (s *Store) Add(r Rule) *Injected {
	for _, pattern := range []string{r.Namespace, r.Object} {
		if _, err := path.Match(pattern, ""); err != nil {
			panic("fault: bad pattern " + pattern)
		}
	}
	return s.rules.Add(r, r.Skip, r.Count)
}

func match(pattern, name string) bool {
	ok, _ := path.Match(pattern, name)
	return ok || pattern == ""
}

func (r *Rule) matches(op Op, namespace string, objects []string) bool {
	if len(r.Ops) > 0 && !slices.Contains(r.Ops, op) || !match(r.Namespace, namespace) {
		return false
	}
	return r.Object == "" || slices.ContainsFunc(objects, func(o string) bool { return match(r.Object, o) })
}

// hit returns the rule for a call, the zero rule if there is none.
func (s *Store) hit(op Op, namespace string, objects []string) Rule {
	return s.rules.Hit(func(r *Rule) bool {
		return r.matches(op, namespace, objects) && (r.Draw == nil || r.Draw())
	})
}

// do runs a call under the rules. The call's own error comes before that of a rule.
func (s *Store) do(ctx context.Context, op Op, namespace string, objects []string, call func() error) error {
	r := s.hit(op, namespace, objects)
	return r.around(ctx, call)
}

func (r *Rule) around(ctx context.Context, call func() error) error {
	return faults.Effect{Gate: r.Gate, Err: r.Err, After: r.After}.Around(ctx, call)
}

// change is do for a call that changes the store. Before a call is put off, keep copies
// what belongs to the caller.
func (s *Store) change(ctx context.Context, op Op, namespace string, objects []string, keep func(), call func(context.Context) error) error {
	s.Land()
	r := s.hit(op, namespace, objects)
	if r.Late {
		keep()
		ctx := context.WithoutCancel(ctx)
		s.order.Lock()
		defer s.order.Unlock()
		s.late = append(s.late, func() { _ = call(ctx) })
		return r.Err
	}
	return r.around(ctx, func() error { return call(ctx) })
}

// Land makes the changes that were put off.
func (s *Store) Land() {
	s.order.Lock()
	defer s.order.Unlock()
	for _, call := range s.late {
		call()
	}
	s.late = nil
}

// CreateNamespace implements backend.Store.
func (s *Store) CreateNamespace(ctx context.Context, name string) error {
	return s.change(ctx, CreateNamespace, name, nil, func() {}, func(ctx context.Context) error { return s.inner.CreateNamespace(ctx, name) })
}

// DeleteNamespace implements backend.Store.
func (s *Store) DeleteNamespace(ctx context.Context, name string) error {
	return s.change(ctx, DeleteNamespace, name, nil, func() {}, func(ctx context.Context) error { return s.inner.DeleteNamespace(ctx, name) })
}

// ListNamespaces implements backend.Store.
func (s *Store) ListNamespaces(ctx context.Context) (names []string, err error) {
	err = s.do(ctx, ListNamespaces, "", nil, func() (err error) {
		names, err = s.inner.ListNamespaces(ctx)
		return err
	})
	if err != nil {
		return nil, err
	}
	return names, nil
}

// Usage implements backend.Store.
func (s *Store) Usage(ctx context.Context) (used, free uint64, err error) {
	err = s.do(ctx, Usage, "", nil, func() (err error) {
		used, free, err = s.inner.Usage(ctx)
		return err
	})
	return used, free, err
}

// Namespace implements backend.Store.
func (s *Store) Namespace(name string) backend.Namespace {
	return &namespace{s: s, name: name, inner: s.inner.Namespace(name)}
}

type namespace struct {
	s     *Store
	name  string
	inner backend.Namespace
}

// Put implements backend.Namespace.
func (n *namespace) Put(ctx context.Context, name string, data []byte) error {
	keep := func() { data = slices.Clone(data) }
	return n.s.change(ctx, Put, n.name, []string{name}, keep, func(ctx context.Context) error { return n.inner.Put(ctx, name, data) })
}

// PutIf implements backend.Namespace.
func (n *namespace) PutIf(ctx context.Context, name string, data []byte, version backend.Version) (v backend.Version, err error) {
	late := false
	keep := func() { data, late = slices.Clone(data), true }
	err = n.s.change(ctx, PutIf, n.name, []string{name}, keep, func(ctx context.Context) error {
		got, err := n.inner.PutIf(ctx, name, data, version)
		if !late {
			v = got
		}
		return err
	})
	if err != nil {
		return 0, err
	}
	return v, nil
}

// Get implements backend.Namespace. A rule with After lets a read pass that returns
// io.EOF.
func (n *namespace) Get(ctx context.Context, name string, p []byte, off int64) (got int, err error) {
	var end error
	err = n.s.do(ctx, Get, n.name, []string{name}, func() error {
		got, end = n.inner.Get(ctx, name, p, off)
		return end
	})
	if err != nil && err != end {
		return 0, err
	}
	return got, err
}

// Stat implements backend.Namespace.
func (n *namespace) Stat(ctx context.Context, name string) (info backend.Info, err error) {
	err = n.s.do(ctx, Stat, n.name, []string{name}, func() (err error) {
		info, err = n.inner.Stat(ctx, name)
		return err
	})
	if err != nil {
		return backend.Info{}, err
	}
	return info, nil
}

// Delete implements backend.Namespace.
func (n *namespace) Delete(ctx context.Context, names []string, cond *backend.Condition) error {
	keep := func() { names = slices.Clone(names) }
	return n.s.change(ctx, Delete, n.name, names, keep, func(ctx context.Context) error { return n.inner.Delete(ctx, names, cond) })
}

// List implements backend.Namespace.
func (n *namespace) List(ctx context.Context, prefix string, fn func(backend.Info) bool) error {
	return n.s.do(ctx, List, n.name, []string{prefix}, func() error { return n.inner.List(ctx, prefix, fn) })
}
