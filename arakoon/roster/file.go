package roster

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"sync"

	"github.com/google/uuid"

	"openvstorage/internal/disk"
	"openvstorage/internal/format"
)

// The file of a roster, little-endian:
//
//	 0 64 common header: kind 19 (roster), owner = the cluster's UUID, number = the roster's
//	      revision
//	64  4 hosts; each: length u16, its value
//	 .  4 groups; each: length u16, its value
//	 .  4 CRC-32C of all before, seeded with the incarnation
//
// It is replaced as a whole. These bytes are on disk. They never change.
const (
	fileVersion = 1
	fileMax     = 8 << 20
	valueMax    = 4 << 10
)

// Errors of Load that callers match with errors.Is, besides format.ErrNewer.
var (
	ErrDamaged = errors.New("damaged")
	ErrCluster = errors.New("of another cluster")
)

// Encode returns the bytes of a roster's file.
func (r *Roster) Encode(cluster uuid.UUID, incarnation uint64) []byte {
	b := format.AppendHeader(nil, format.Header{
		Kind: format.KindRoster, Version: fileVersion, MinReader: fileVersion,
		Owner: cluster, Number: r.Revision, Incarnation: incarnation,
	})
	b = binary.LittleEndian.AppendUint32(b, uint32(len(r.Hosts)))
	for _, h := range r.Hosts {
		b = appendValue(b, h.Append(nil))
	}
	b = binary.LittleEndian.AppendUint32(b, uint32(len(r.Groups)))
	for _, g := range r.Groups {
		b = appendValue(b, g.Append(nil))
	}
	return binary.LittleEndian.AppendUint32(b, format.SeededCRC(incarnation, b))
}

func appendValue(dst, v []byte) []byte {
	return append(binary.LittleEndian.AppendUint16(dst, uint16(len(v))), v...)
}

// Decode reads what Encode made.
func Decode(b []byte, cluster uuid.UUID) (*Roster, error) {
	h, err := format.DecodeRewritten(b, format.KindRoster, fileVersion, 0)
	if errors.Is(err, format.ErrCorrupt) {
		err = fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if err != nil {
		return nil, err
	}
	if h.Owner != cluster {
		return nil, fmt.Errorf("%w: it is of cluster %s, this is cluster %s", ErrCluster, h.Owner, cluster)
	}
	end := len(b) - 4
	if end < format.HeaderSize || format.SeededCRC(h.Incarnation, b[:end]) != binary.LittleEndian.Uint32(b[end:]) {
		return nil, fmt.Errorf("%w: its checksum is wrong", ErrDamaged)
	}
	r, err := decodeValues(b[format.HeaderSize:end])
	if err != nil {
		return nil, err
	}
	r.Revision = h.Number
	if err := r.Check(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return r, nil
}

func decodeValues(b []byte) (*Roster, error) {
	all, r := &cutter{b: b}, new(Roster)
	for _, list := range []struct {
		most int
		take func(*cutter)
	}{
		{HostsMax, func(c *cutter) { r.Hosts = append(r.Hosts, c.host()) }},
		{GroupsMax, func(c *cutter) { r.Groups = append(r.Groups, c.group()) }},
	} {
		n := int(binary.LittleEndian.Uint32(all.cut(4)))
		if n > list.most {
			return nil, fmt.Errorf("%w: a list of %d, at most %d", ErrDamaged, n, list.most)
		}
		for ; n > 0 && all.err == nil; n-- {
			size := int(binary.LittleEndian.Uint16(all.cut(2)))
			if all.err != nil || size > valueMax {
				return nil, fmt.Errorf("%w: a value of %d bytes", ErrDamaged, size)
			}
			one := &cutter{b: all.cut(size)}
			if all.err != nil {
				break
			}
			list.take(one)
			if err := one.end("file"); err != nil {
				return nil, err
			}
		}
	}
	if all.err != nil || len(all.b) > 0 {
		return nil, fmt.Errorf("%w: its lists do not end where it does", ErrDamaged)
	}
	return r, nil
}

// File is the roster of a host, in memory and on disk. Methods are safe for concurrent use.
type File struct {
	fs      disk.FS
	name    string
	cluster uuid.UUID

	mu      sync.RWMutex
	now     *Roster
	changed chan struct{}

	saving  sync.Mutex
	durable *Roster // what was saved last, or loaded; guarded by saving
}

// Load opens the file of a roster. A missing one is an empty roster. One that is damaged is an
// error that matches ErrDamaged, and stays as it is: the roster can be had from any other
// host, so whoever gets this error deletes the file and joins by an address that is known.
func Load(fsys disk.FS, name string, cluster uuid.UUID) (*File, error) {
	f := &File{fs: fsys, name: name, cluster: cluster, now: new(Roster), changed: make(chan struct{})}
	f.durable = f.now // nothing is to be saved of an empty one
	b, err := disk.ReadWhole(fsys, name, fileMax)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return f, nil
	case errors.Is(err, disk.ErrTooLong):
		err = fmt.Errorf("%w: %w", ErrDamaged, err)
	case err == nil:
		f.now, err = Decode(b, cluster)
		f.durable = f.now
	}
	if err != nil {
		return nil, fmt.Errorf("roster %s: %w", name, err)
	}
	return f, nil
}

// Now is the newest roster. It must not be changed.
func (f *File) Now() *Roster {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.now
}

// Changed returns a channel that is closed at the next change.
func (f *File) Changed() <-chan struct{} {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.changed
}

// Put takes a newer roster; one of an older or the same revision changes nothing. What is newest
// is in use at once, and durable on return: first a draft that is synced, then its name. An
// error says that the file is still the old one, or that this is not known; both are good for a
// start. The next Put, also of the same or an older revision, then saves it again.
func (f *File) Put(r *Roster) error {
	if err := r.Check(); err != nil {
		return err
	}
	f.saving.Lock()
	defer f.saving.Unlock()
	f.mu.Lock()
	if r.Revision > f.now.Revision {
		f.now = r
		close(f.changed)
		f.changed = make(chan struct{})
	}
	now := f.now
	f.mu.Unlock()
	if f.durable == now {
		return nil
	}
	if err := f.save(now); err != nil {
		return fmt.Errorf("roster %s: %w", f.name, err)
	}
	f.durable = now
	return nil
}

func (f *File) save(r *Roster) error {
	var seed [8]byte
	if _, err := rand.Read(seed[:]); err != nil {
		return err
	}
	return disk.ReplaceWhole(f.fs, f.name, r.Encode(f.cluster, binary.LittleEndian.Uint64(seed[:])|1))
}
