package trust

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"github.com/google/uuid"

	"openvstorage/internal/keyswap"
)

// Store is the replicated store of the records: the config group. Its methods are safe
// for concurrent use, and reads see every swap that was answered before. Package
// trust/trusttest has its suite, and one in memory.
type Store interface {
	// Get returns the value of a key, nil if it is absent. It is the caller's.
	Get(ctx context.Context, key []byte) ([]byte, error)
	// Range calls fn with all keys that begin with prefix, in order and as of one moment,
	// until it returns false. fn may keep the slices.
	Range(ctx context.Context, prefix []byte, fn func(key, value []byte) bool) error
	// Swap makes all swaps if every key has its old value, and otherwise none and returns
	// false. What it made is durable and visible on return. After an error it may have
	// been made, or may be made yet. It keeps none of the slices.
	Swap(ctx context.Context, swaps []keyswap.Swap) (bool, error)
}

func hostKey(id uuid.UUID) []byte         { return append([]byte(hostPrefix), id[:]...) }
func certificateKey(s Serial) []byte      { return append([]byte(certificatePrefix), s[:]...) }
func tokenKey(hash [32]byte) []byte       { return append([]byte(tokenPrefix), hash[:]...) }
func hasPrefix(key []byte, p string) bool { return strings.HasPrefix(string(key), p) }

// changeTries is how often a change is tried that others came before.
const changeTries = 16

// change is one change of the records: what it has read, and what it will write. The
// meta record goes with every change, so that no two are made of the same state.
type change struct {
	ctx   context.Context
	store Store
	meta  meta
	swaps []keyswap.Swap // by the order of reading; New is Old until it is set
}

// get returns the value of a key as this change leaves it.
func (c *change) get(key []byte) ([]byte, error) {
	if i := c.find(key); i >= 0 {
		return c.swaps[i].New, nil
	}
	value, err := c.store.Get(c.ctx, key)
	if err != nil {
		return nil, err
	}
	c.swaps = append(c.swaps, keyswap.Swap{Key: key, Old: value, New: value})
	return value, nil
}

// set gives a key, which get has read, a new value; nil removes it.
func (c *change) set(key, value []byte) { c.swaps[c.find(key)].New = value }

func (c *change) find(key []byte) int {
	return slices.IndexFunc(c.swaps, func(s keyswap.Swap) bool { return bytes.Equal(s.Key, key) })
}

// update makes a change of what fn reads and sets. It calls fn again if somebody else
// changed the records meanwhile. If fn sets nothing, nothing is written.
func update(ctx context.Context, store Store, fn func(*change) error) error {
	for range changeTries {
		old, err := store.Get(ctx, []byte(metaKey))
		if err != nil {
			return fmt.Errorf("trust: records: %w", err)
		}
		c := &change{ctx: ctx, store: store}
		if old != nil {
			if c.meta, err = decodeMeta(old); err != nil {
				return err
			}
		}
		if err := fn(c); err != nil {
			return err
		}
		if !slices.ContainsFunc(c.swaps, func(s keyswap.Swap) bool { return !bytes.Equal(s.Old, s.New) || (s.Old == nil) != (s.New == nil) }) {
			return nil
		}
		c.meta.number++
		if c.meta.draw, err = draw(); err != nil {
			return err
		}
		swaps := append(c.swaps, keyswap.Swap{Key: []byte(metaKey), Old: old, New: c.meta.encode()})
		done, err := store.Swap(ctx, swaps)
		if err != nil {
			return fmt.Errorf("trust: records: this change may have been made, or may not: %w", err)
		}
		if done {
			return nil
		}
	}
	return fmt.Errorf("trust: records: %w, %d times; try again", ErrContended, changeTries)
}

// draw returns a random number: two stores that went apart tell their changes by it.
func draw() (uint64, error) {
	var b [8]byte
	if _, err := rand.Read(b[:]); err != nil {
		return 0, fmt.Errorf("trust: random number: %w", err)
	}
	return binary.LittleEndian.Uint64(b[:]), nil
}
