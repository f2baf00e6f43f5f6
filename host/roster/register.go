package roster

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/google/uuid"

	"openvstorage/internal/format"
	"openvstorage/internal/generation"
	"openvstorage/internal/keyswap"
)

// Store is the replicated store of the records. Package trust says what its methods do.
type Store interface {
	Get(ctx context.Context, key []byte) ([]byte, error)
	Range(ctx context.Context, prefix []byte, fn func(key, value []byte) bool) error
	Swap(ctx context.Context, swaps []keyswap.Swap) (bool, error)
}

// ErrCopy: the data directory of a host is a copy: an older one, or one that went on apart
// from the directory that the cluster knows.
var ErrCopy = errors.New("the data directory is a copy")

// ErrUnknown: a host has no record of where it is.
var ErrUnknown = errors.New("no record of the host")

// errContended: others changed the record each time.
var errContended = errors.New("the record of the host kept changing")

// registerTries is how often a record is tried to be written that changed meanwhile.
const registerTries = 8

// Key is the key of a host's record.
func Key(id uuid.UUID) []byte { return append([]byte(Prefix), id[:]...) }

// Register writes the record of a host, whose directory has that history of starts, its
// newest among them. The error matches ErrCopy if the record that is there is not of that
// history: nothing is written then. If nothing changes, nothing is written. A record of a
// newer release stays as it is, and is an error.
func Register(ctx context.Context, store Store, h Host, history generation.History) error {
	if err := h.Check(); err != nil {
		return err
	}
	if !slices.Contains(history, h.Mark) {
		return fmt.Errorf("host %s announces start %s, which is not in its history", h.ID, h.Mark)
	}
	value := h.Encode()
	for range registerTries {
		old, err := store.Get(ctx, Key(h.ID))
		if err != nil {
			return fmt.Errorf("record of host %s: %w", h.ID, err)
		}
		if bytes.Equal(old, value) {
			return nil
		}
		if old != nil {
			was, err := Decode(old)
			if err != nil {
				return err
			}
			if err := Judge(history, h, was.Mark); err != nil {
				return err
			}
		}
		done, err := store.Swap(ctx, []keyswap.Swap{{Key: Key(h.ID), Old: old, New: value}})
		if err != nil {
			return fmt.Errorf("record of host %s: it may have been written, or may not: %w", h.ID, err)
		}
		if done {
			return nil
		}
	}
	return fmt.Errorf("host %s: %w; try again", h.ID, errContended)
}

// SetAddress changes where a host is, in the record of its newest start: for a host that
// moved and cannot say so itself. The host puts its own address there when it reaches the
// others again. The error matches ErrUnknown if it has no record.
func SetAddress(ctx context.Context, store Store, id uuid.UUID, address string) error {
	if err := CheckAddress(address); err != nil {
		return fmt.Errorf("host %s: %w", id, err)
	}
	for range registerTries {
		old, err := store.Get(ctx, Key(id))
		if err != nil {
			return fmt.Errorf("record of host %s: %w", id, err)
		}
		if old == nil {
			return fmt.Errorf("host %s: %w: it has not said yet where it is", id, ErrUnknown)
		}
		h, err := Decode(old)
		if err != nil {
			return err
		}
		h.Addresses = []string{address}
		value := h.Encode()
		if bytes.Equal(old, value) {
			return nil
		}
		done, err := store.Swap(ctx, []keyswap.Swap{{Key: Key(id), Old: old, New: value}})
		if err != nil {
			return fmt.Errorf("record of host %s: it may have been written, or may not: %w", id, err)
		}
		if done {
			return nil
		}
	}
	return fmt.Errorf("host %s: %w; try again", id, errContended)
}

// Judge returns nil if a mark that is on record is one of the directory's own history.
func Judge(history generation.History, h Host, recorded generation.Mark) error {
	switch history.Judge(h.Mark.Number, recorded) {
	case generation.Newer:
		return fmt.Errorf("host %s: %w, an older one: it is of generation %d, and the cluster has seen %d: start the newest one", h.ID, ErrCopy, h.Mark.Number, recorded.Number)
	case generation.Foreign:
		return fmt.Errorf("host %s: %w: another was started as generation %d, which this one is not of: two copies are in use; keep the other one, or remove the host and join with an empty directory", h.ID, ErrCopy, recorded.Number)
	}
	return nil
}

// List returns all records that this release can read, in order of their UUIDs. Of those
// that it cannot, skipped is told, which may be nil.
func List(ctx context.Context, store Store, skipped func(error)) (all []Host, err error) {
	err = store.Range(ctx, []byte(Prefix), func(_, value []byte) bool {
		h, err := Decode(value)
		if err == nil {
			all = append(all, h)
		} else if skipped != nil {
			skipped(err)
		}
		return len(all) < HostsMax
	})
	return all, err
}

// An announcement, little-endian: count of starts u16, each 16 bytes as in package
// generation, oldest first; then the record. These bytes are on the wire between
// releases. They never change.

// EncodeAnnouncement returns the bytes by which a host says where it is.
func EncodeAnnouncement(h Host, history generation.History) []byte {
	b := binary.LittleEndian.AppendUint16(nil, uint16(len(history)))
	for _, m := range history {
		b = m.Append(b)
	}
	return append(b, h.Encode()...)
}

// DecodeAnnouncement reads what EncodeAnnouncement writes.
func DecodeAnnouncement(b []byte) (h Host, history generation.History, err error) {
	if len(b) < 2 {
		return h, nil, fmt.Errorf("announcement of a host: %w: %d bytes", format.ErrCorrupt, len(b))
	}
	n := int(binary.LittleEndian.Uint16(b))
	b = b[2:]
	if n > generation.HistoryMax || n*generation.Size > len(b) {
		return h, nil, fmt.Errorf("announcement of a host: %w: %d starts in %d bytes", format.ErrCorrupt, n, len(b))
	}
	for range n {
		m, err := generation.Decode(b[:generation.Size])
		if err != nil {
			return h, nil, err
		}
		history, b = append(history, m), b[generation.Size:]
	}
	h, err = Decode(b)
	return h, history, err
}
