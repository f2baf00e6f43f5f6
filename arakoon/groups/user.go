package groups

import (
	"context"
	"errors"

	"openvstorage/arakoon"
	"openvstorage/arakoon/state"
)

// User is a group for whoever reads and writes its keys in this process: the member that is
// open here, whichever opening of it that is. While a member that has failed is opened anew, a
// call that it has refused, and so has not done, waits for the next opening: until its context
// ends, and up to userPatience after the failure. What was under way when the member failed is
// not done again: its outcome is unknown, and the next opening decides it, before it answers
// anything. Methods are those of *arakoon.Node, and safe for concurrent use.
type User struct{ of *member }

// User is a group for those who use its keys here; nil for a group that has no member here.
func (g *Groups) User(name string) *User {
	if m := g.members.get(name); m != nil && !m.spec.Away {
		return &User{m}
	}
	return nil
}

// Refused reports whether an error of a member that has ended says that nothing was done.
func Refused(err error) bool {
	return !errors.Is(err, arakoon.ErrUnknownOutcome) && (errors.Is(err, arakoon.ErrFailed) || errors.Is(err, arakoon.ErrClosed) || errors.Is(err, state.ErrStopped))
}

// try has the member do something. again tells of an error whether that may be done anew by
// another opening of the member.
func (u *User) try(ctx context.Context, do func(*arakoon.Node) error, again func() bool) error {
	for {
		n := u.of.node()
		err := do(n)
		if err == nil || n.Err() == nil || !Refused(err) || !again() {
			return err
		}
		if !u.of.await(ctx, n) {
			return err
		}
	}
}

func always() bool { return true }

// Get is as at *arakoon.Node, as are the methods below.
func (u *User) Get(ctx context.Context, c arakoon.Consistency, key []byte) (value []byte, err error) {
	err = u.try(ctx, func(n *arakoon.Node) error {
		value, err = n.Get(ctx, c, key)
		return err
	}, always)
	return value, err
}

// MultiGet returns the values of keys at one moment, nil for those absent.
func (u *User) MultiGet(ctx context.Context, c arakoon.Consistency, keys ...[]byte) (values [][]byte, err error) {
	err = u.try(ctx, func(n *arakoon.Node) error {
		values, err = n.MultiGet(ctx, c, keys...)
		return err
	}, always)
	return values, err
}

// Range calls fn with the keys in [first, last). If the member fails after fn was called, that
// is told: fn is told of no key twice.
func (u *User) Range(ctx context.Context, c arakoon.Consistency, first, last []byte, limit int, fn func(key, value []byte) bool) error {
	called := false
	return u.try(ctx, func(n *arakoon.Node) error {
		return n.Range(ctx, c, first, last, limit, func(key, value []byte) bool {
			called = true
			return fn(key, value)
		})
	}, func() bool { return !called })
}

// Prefix is Range over all keys with a prefix.
func (u *User) Prefix(ctx context.Context, c arakoon.Consistency, prefix []byte, limit int, fn func(key, value []byte) bool) error {
	called := false
	return u.try(ctx, func(n *arakoon.Node) error {
		return n.Prefix(ctx, c, prefix, limit, func(key, value []byte) bool {
			called = true
			return fn(key, value)
		})
	}, func() bool { return !called })
}

// Do does a sequence.
func (u *User) Do(ctx context.Context, seq *arakoon.Sequence) (results []arakoon.Result, err error) {
	err = u.try(ctx, func(n *arakoon.Node) error {
		results, err = n.Do(ctx, seq)
		return err
	}, always)
	return results, err
}

// Write does a sequence, and returns its revision.
func (u *User) Write(ctx context.Context, seq *arakoon.Sequence) (index uint64, results []arakoon.Result, err error) {
	err = u.try(ctx, func(n *arakoon.Node) error {
		index, results, err = n.Write(ctx, seq)
		return err
	}, always)
	return index, results, err
}

// Call calls a user function.
func (u *User) Call(ctx context.Context, name string, version uint32, arg []byte) (out []byte, err error) {
	err = u.try(ctx, func(n *arakoon.Node) error {
		out, err = n.Call(ctx, name, version, arg)
		return err
	}, always)
	return out, err
}
