package state

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"slices"

	"github.com/cockroachdb/pebble/v2"
)

// Image is the state as it was at an index, whatever is applied after that. It keeps tables
// of Pebble from being removed until it is closed, and must be closed before the state.
// One goroutine uses it.
type Image struct {
	snap *pebble.Snapshot
	meta meta
}

// imageOf makes an image; Apply calls it, so nothing is written meanwhile.
func (s *State) imageOf(m meta) *Image { return &Image{snap: s.db.NewSnapshot(), meta: m} }

// Image makes an image of the state as it is.
func (s *State) Image() (*Image, error) {
	if err := s.Err(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	m := s.meta
	s.mu.Unlock()
	i := &Image{snap: s.db.NewSnapshot(), meta: m}
	// Apply may have come between: what the image holds says of which index it is.
	v, found, err := get(i.snap, metaKey)
	if err == nil && found {
		i.meta, err = decodeMeta(v)
	}
	if err != nil {
		_ = i.Close()
		return nil, err
	}
	return i, nil
}

// Index is the index of the last entry that the image has.
func (i *Image) Index() uint64 { return i.meta.at.Index }

// Joining reports whether the image is of a member that has joined, from before the first
// change of the members that it has applied. Until then it knows of none, and its Sum is not
// that of the others.
func (i *Image) Joining() bool { return len(i.meta.at.Conf.GetVoters()) == 0 }

// Close lets go of the image.
func (i *Image) Close() error { return i.snap.Close() }

// each calls fn with all keys, as Pebble has them, but for the meta. The slices are valid
// during the call.
func (i *Image) each(fn func(key, value []byte) error) (err error) {
	it, err := i.snap.NewIter(nil)
	if err != nil {
		return damaged(err)
	}
	defer func() {
		if e := it.Close(); err == nil {
			err = damaged(e)
		}
	}()
	for ok := it.First(); ok; ok = it.Next() {
		if string(it.Key()) == string(metaKey) {
			continue
		}
		v, err := it.ValueAndErr()
		if err != nil {
			return damaged(err)
		}
		if err := fn(it.Key(), v); err != nil {
			return err
		}
	}
	return damaged(it.Error())
}

// Sum is a SHA-256 over all that members have in common at the image's index: users' keys,
// sessions, leases, members, level and time, and not over what is one member's own. pace,
// which may be nil, is called before so many bytes are read, and may wait.
func (i *Image) Sum(ctx context.Context, pace func(ctx context.Context, bytes int) error) (sum [32]byte, err error) {
	h := sha256.New()
	h.Write(appendCommon(nil, i.meta))
	var lengths [8]byte
	size := 0
	err = i.each(func(key, value []byte) error {
		binary.LittleEndian.PutUint32(lengths[:], uint32(len(key)))
		binary.LittleEndian.PutUint32(lengths[4:], uint32(len(value)))
		h.Write(lengths[:])
		h.Write(key)
		h.Write(value)
		if size += len(key) + len(value); size < paceBytes {
			return nil
		}
		n := size
		size = 0
		if err := ctx.Err(); err != nil || pace == nil {
			return err
		}
		return pace(ctx, n)
	})
	return [32]byte(h.Sum(nil)), err
}

// paceBytes is how much is read between two calls of a pace.
const paceBytes = 256 << 10

// appendCommon appends what members have in common of the meta. It is the input of a hash
// that members of one level compare, and is never stored.
func appendCommon(dst []byte, m meta) []byte {
	dst = append(dst, m.cluster[:]...)
	dst = appendU64(appendU64(appendU64(dst, m.at.Index), m.at.Term), uint64(m.time))
	dst = appendU32(appendU32(dst, m.level), m.leases)
	c := m.at.Conf
	dst = appendFlag(dst, c.GetAutoLeave())
	for _, list := range [][]uint64{c.GetVoters(), c.GetLearners(), c.GetVotersOutgoing(), c.GetLearnersNext()} {
		dst = appendU32(dst, uint32(len(list)))
		for _, id := range slices.Sorted(slices.Values(list)) {
			dst = appendU64(dst, id)
		}
	}
	return dst
}

// Mark makes the sequence that has every member give an image of its state at the index of
// the entry (Options.OnMark).
func Mark() *Sequence {
	s := new(Sequence)
	s.step(opMark, nil)
	return s
}
