// Package treetest is a store of keys in memory, for tests of trees and mounts.
package treetest

import (
	"bytes"
	"context"
	"maps"
	"slices"
	"strings"
	"sync"

	"openvstorage/fusefs/filetree"
)

// Keys implements filetree.Keys.
type Keys struct {
	mu   sync.Mutex
	m    map[string][]byte
	fail error
	made bool // what fails is made all the same
	deaf error
	hold func(context.Context) error
}

var _ filetree.Keys = (*Keys)(nil)

// New returns an empty store.
func New() *Keys { return &Keys{m: map[string][]byte{}} }

// Fail makes writes fail with err until it is nil.
func (k *Keys) Fail(err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.fail, k.made, k.deaf = err, false, nil
}

// Doubt makes writes fail with err, which leaves open whether they are made:
// they are if made says so. Nobody finds out until Fail(nil).
func (k *Keys) Doubt(err error, made bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.fail, k.made, k.deaf = err, made, err
}

// Settle implements filetree.Keys.
func (k *Keys) Settle(context.Context) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.deaf
}

// Hold makes writes wait in fn before they are made, or not any more if it is
// nil. Its error is that of the write.
func (k *Keys) Hold(fn func(context.Context) error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.hold = fn
}

// All returns all that is stored.
func (k *Keys) All() map[string][]byte {
	k.mu.Lock()
	defer k.mu.Unlock()
	return maps.Clone(k.m)
}

// Range implements filetree.Keys.
func (k *Keys) Range(_ context.Context, prefix []byte, fn func(key, value []byte) bool) error {
	all := k.All()
	for _, key := range slices.Sorted(maps.Keys(all)) {
		if strings.HasPrefix(key, string(prefix)) && !fn([]byte(key), bytes.Clone(all[key])) {
			return nil
		}
	}
	return nil
}

// Write implements filetree.Keys.
func (k *Keys) Write(ctx context.Context, changes []filetree.Change) error {
	k.mu.Lock()
	hold := k.hold
	k.mu.Unlock()
	if hold != nil {
		if err := hold(ctx); err != nil {
			return err
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.fail != nil && !k.made {
		return k.fail
	}
	for _, c := range changes {
		if c.Value == nil {
			delete(k.m, string(c.Key))
		} else {
			k.m[string(c.Key)] = bytes.Clone(c.Value)
		}
	}
	return k.fail
}
