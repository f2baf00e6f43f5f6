// Package pebblestore is a metadata.Store on Pebble, shared by the vDisks of a host. Pebble's
// write-ahead log is off, as page objects and TLogs can rebuild all that the store holds. Flush
// makes pages durable.
//
// A key is the owner's UUID and the page number, big-endian, 24 bytes; a value is the encoded
// page. If Open finds a store corrupt, the caller deletes the whole directory, and fills a new
// one from the backend.
package pebblestore

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"

	"openvstorage/internal/disk/pebblefs"
	"openvstorage/metadata"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/uuid"
)

// ErrCorrupt is matched by Open's error if the directory's content is damaged. Delete the
// directory, and open again.
var ErrCorrupt = errors.New("page store corrupt")

// ErrFailed is matched by every error after Pebble gave up.
var ErrFailed = errors.New("page store failed")

// Options for Open. Zero values get the defaults.
type Options struct {
	CacheBytes    int64  // Pebble's block cache; default 8 MiB: pages have a cache of their own
	MemTableBytes uint64 // default 4 MiB
	OpenFiles     int    // default 64
	Logger        *slog.Logger

	// Fatal is called once when Pebble gives up, as it does when it cannot write its
	// manifest. The goroutine that called it then stops for ever, with Pebble's locks
	// held. Later operations return ErrFailed; those under way may hang. Fatal should
	// end the process. The default only logs.
	Fatal func(error)
}

func (o Options) withDefaults() Options {
	if o.CacheBytes == 0 {
		o.CacheBytes = 8 << 20
	}
	if o.MemTableBytes == 0 {
		o.MemTableBytes = 4 << 20
	}
	if o.OpenFiles == 0 {
		o.OpenFiles = 64
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Fatal == nil {
		o.Fatal = func(error) {}
	}
	return o
}

// Store is an open store.
type Store struct {
	db     *pebble.DB
	dir    string
	failed atomic.Pointer[error]
	log    *slog.Logger
	fatal  func(error)
}

var _ metadata.Store = (*Store)(nil)

// Open opens or makes the store in a directory.
func Open(fs vfs.FS, dir string, o Options) (*Store, error) {
	o = o.withDefaults()
	s := &Store{dir: dir, log: o.Logger.With("store", dir), fatal: o.Fatal}
	cache := pebble.NewCache(o.CacheBytes)
	defer cache.Unref()
	po := &pebble.Options{
		FS:                          fs,
		Cache:                       cache,
		DisableWAL:                  true,
		FormatMajorVersion:          pebblefs.Format,
		MemTableSize:                o.MemTableBytes,
		MemTableStopWritesThreshold: 4,
		MaxOpenFiles:                o.OpenFiles,
		MaxManifestFileSize:         1 << 20,
		Logger:                      (*logger)(s),
		// Damage fails the read that meets it, and the page is read from elsewhere.
		// Without this listener Pebble would call Fatalf.
		EventListener: &pebble.EventListener{DataCorruption: func(i pebble.DataCorruptionInfo) {
			s.log.Warn("page store is damaged", "file", i.Path, "err", i.Details)
		}},
	}
	for i := range po.Levels {
		po.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
	}
	db, err := pebblefs.Open(dir, po)
	if err != nil {
		if pebble.IsCorruptionError(err) || errors.Is(err, pebblefs.ErrTooLong) {
			err = fmt.Errorf("%w: %w", ErrCorrupt, err)
		}
		return nil, fmt.Errorf("pebblestore: open %s: %w", dir, err)
	}
	s.db = db
	return s, nil
}

// Close closes the store. What was not flushed may be lost.
func (s *Store) Close() error {
	if err := s.err(); err != nil {
		return err
	}
	if err := s.db.Close(); err != nil {
		return fmt.Errorf("pebblestore: close %s: %w", s.dir, err)
	}
	return nil
}

// err returns what made Pebble give up, or nil.
func (s *Store) err() error {
	if e := s.failed.Load(); e != nil {
		return *e
	}
	return nil
}

// wrap names the operation and says whether the page or the store is bad.
func (s *Store) wrap(op string, err error) error {
	return fmt.Errorf("pebblestore: %s in %s: %w", op, s.dir, err)
}

const keySize = 24

func makeKey(owner uuid.UUID, number uint64) (k [keySize]byte) {
	copy(k[:16], owner[:])
	binary.BigEndian.PutUint64(k[16:], number)
	return k
}

// LoadPage implements metadata.Store. The page is verified.
func (s *Store) LoadPage(ctx context.Context, owner uuid.UUID, number uint64, buf []byte) ([]byte, error) {
	if err := s.err(); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, s.wrap("load", err)
	}
	k := makeKey(owner, number)
	v, closer, err := s.db.Get(k[:])
	switch {
	case errors.Is(err, pebble.ErrNotFound):
		return nil, s.wrap("load", metadata.ErrPageNotFound)
	case pebble.IsCorruptionError(err):
		return nil, s.wrap("load", fmt.Errorf("%w: %w", metadata.ErrPageCorrupt, err))
	case err != nil:
		return nil, s.wrap("load", err)
	}
	defer closer.Close()
	if err := metadata.CheckPage(v, owner, number); err != nil {
		return nil, s.wrap("load", err)
	}
	return append(buf[:0], v...), nil
}

// batchBytes bounds one batch, well below a memtable.
const batchBytes = 256 << 10

// SavePages implements metadata.Store. Nothing is synced.
func (s *Store) SavePages(ctx context.Context, owner uuid.UUID, pages []metadata.EncodedPage) error {
	for len(pages) > 0 {
		if err := s.err(); err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return s.wrap("save", err)
		}
		b := s.db.NewBatch()
		n := 0
		for n < len(pages) && b.Len() < batchBytes {
			k := makeKey(owner, pages[n].Number)
			if err := b.Set(k[:], pages[n].Bytes, nil); err != nil {
				b.Close()
				return s.wrap("save", err)
			}
			n++
		}
		err := b.Commit(pebble.NoSync)
		b.Close()
		if err != nil {
			return s.wrap("save", err)
		}
		pages = pages[n:]
	}
	return nil
}

// Flush implements metadata.Store: it waits until the memtables are tables on the medium.
// While writing fails, Pebble tries again; ctx ends the wait.
func (s *Store) Flush(ctx context.Context) error {
	if err := s.err(); err != nil {
		return err
	}
	done, err := s.db.AsyncFlush()
	if err != nil {
		return s.wrap("flush", err)
	}
	select {
	case <-done:
		return s.err()
	case <-ctx.Done():
		return s.wrap("flush", ctx.Err())
	}
}

// DeletePages implements metadata.Store. Short ranges are deleted key by key, as a range
// tombstone makes every later read in its table slower.
func (s *Store) DeletePages(ctx context.Context, owner uuid.UUID, from, to uint64) error {
	if err := s.err(); err != nil {
		return err
	}
	if to <= from {
		return nil
	}
	b := s.db.NewBatch()
	defer b.Close()
	var err error
	if to-from <= 16 {
		for n := from; n < to && err == nil; n++ {
			k := makeKey(owner, n)
			err = b.Delete(k[:], nil)
		}
	} else {
		k, end := makeKey(owner, from), makeKey(owner, to)
		err = b.DeleteRange(k[:], end[:], nil)
	}
	if err == nil {
		err = b.Commit(pebble.NoSync)
	}
	if err != nil {
		return s.wrap("delete", err)
	}
	return nil
}

// ListPages implements metadata.Store.
func (s *Store) ListPages(ctx context.Context, owner uuid.UUID, from, to uint64, fn func(number uint64) bool) error {
	if err := s.err(); err != nil {
		return err
	}
	lo, hi := makeKey(owner, from), makeKey(owner, to)
	it, err := s.db.NewIterWithContext(ctx, &pebble.IterOptions{LowerBound: lo[:], UpperBound: hi[:]})
	if err != nil {
		return s.wrap("list", err)
	}
	for ok := it.First(); ok; ok = it.Next() {
		if k := it.Key(); len(k) == keySize && !fn(binary.BigEndian.Uint64(k[16:])) {
			break
		}
	}
	if err := it.Close(); err != nil {
		return s.wrap("list", err)
	}
	return nil
}

// logger is the Store as Pebble's logger. Its infos are logged at debug level.
type logger Store

func (l *logger) Infof(f string, args ...any)  { l.log.Debug(fmt.Sprintf(f, args...)) }
func (l *logger) Errorf(f string, args ...any) { l.log.Error(fmt.Sprintf(f, args...)) }

// Fatalf must not return: Pebble relies on that.
func (l *logger) Fatalf(f string, args ...any) {
	err := fmt.Errorf("pebblestore: %s: %w: %s", l.dir, ErrFailed, fmt.Sprintf(f, args...))
	if l.failed.CompareAndSwap(nil, &err) {
		l.log.Error("page store gave up", "err", err)
		l.fatal(err)
	}
	select {}
}
