// Package faults is the part that test decorators share which make calls fail or wait
// by rules: it finds the rule that hits a call, and applies the effect. Which
// properties of a call a rule looks at is up to the decorator.
package faults

import (
	"context"
	"slices"
	"sync"

	"openvstorage/internal/gate"
)

// Effect is what happens to a call that is hit. The zero value does nothing.
type Effect struct {
	Gate  *gate.Gate // holds the call
	Err   error      // what the call returns; nil: only the gate matters
	After bool       // gate and error come after the call has succeeded, not before it begins
}

// Around makes a call under an effect. If the call itself fails, its error takes
// precedence over that of an effect with After.
func (e Effect) Around(ctx context.Context, call func() error) error {
	if !e.After {
		if err := e.act(ctx); err != nil {
			return err
		}
	}
	err := call()
	if err == nil && e.After {
		return e.act(ctx)
	}
	return err
}

func (e Effect) act(ctx context.Context) error {
	if e.Gate != nil {
		if err := e.Gate.Hold(ctx); err != nil {
			return err
		}
	}
	return e.Err
}

// Rules are rules of type R, in order. The zero value has none. Safe for concurrent
// use.
type Rules[R any] struct {
	mu   sync.Mutex
	list []*Injected[R]
}

// Injected is a rule at work.
type Injected[R any] struct {
	rules       *Rules[R]
	rule        R
	skip, count int
	seen, hits  int // guarded by rules.mu
}

// Add puts a rule behind the existing ones. The first skip calls that it matches pass,
// and the next count calls are hit, or all later calls if count is 0.
func (r *Rules[R]) Add(rule R, skip, count int) *Injected[R] {
	r.mu.Lock()
	defer r.mu.Unlock()
	i := &Injected[R]{rules: r, rule: rule, skip: skip, count: count}
	r.list = append(r.list, i)
	return i
}

// Hit returns the first rule that matches a call and hits it, or the zero rule if there
// is none. matches is called under a lock, for one rule after the other.
func (r *Rules[R]) Hit(matches func(*R) bool) (rule R) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, i := range r.list {
		if !matches(&i.rule) {
			continue
		}
		i.seen++
		if i.seen > i.skip && (i.count == 0 || i.hits < i.count) {
			i.hits++
			return i.rule
		}
	}
	return rule
}

// Remove takes the rule away. Calls that its gate holds stay held.
func (i *Injected[R]) Remove() {
	i.rules.mu.Lock()
	defer i.rules.mu.Unlock()
	i.rules.list = slices.DeleteFunc(i.rules.list, func(r *Injected[R]) bool { return r == i })
}

// Hits returns how many calls the rule has hit.
func (i *Injected[R]) Hits() int {
	i.rules.mu.Lock()
	defer i.rules.mu.Unlock()
	return i.hits
}
