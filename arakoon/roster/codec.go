package roster

import (
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/google/uuid"

	"openvstorage/internal/format"
)

// Keys in the config group, and their values.
//
//	roster/h UUID   a host
//	roster/g name   a group
//	roster/v        how often the roster was changed
//
// Values, little-endian. A text has its length before it, one byte. Whoever reads a value may
// rewrite it, so what a reader does not know it refuses, as of a newer release. All begin
// with:
//
//	0 1 version, 1
//	1 1 kind: 1 host, 2 group, 3 revision
//	2 2 zero
//	4 4 incompatible features of a host: bit 0: it listens without TLS, bit 1: it is about to
//	    leave, and its members go elsewhere, bit 2: maintenance
//
// Host: UUID 16, zone, number of addresses u8, addresses.
// Group: life u64, next member u64, zones that are required u8, name, number of members u8,
// members of: number u64, host 16; in order of number.
// Revision: u64.
//
// These bytes are stored. They never change.
const (
	// Prefix begins every key of a roster.
	Prefix = "roster/"

	hostPrefix  = Prefix + "h"
	groupPrefix = Prefix + "g"
	revisionKey = Prefix + "v"

	valueVersion = 1
	valueHead    = 8
	kindHost     = 1
	kindGroup    = 2
	kindRevision = 3

	insecureBit = 1 << 0
	leavesBit   = 1 << 1
	serviceBit  = 1 << 2
)

// Key is the key that a host is kept under.
func (h *Host) Key() []byte { return append([]byte(hostPrefix), h.ID[:]...) }

// Key is the key that a group is kept under.
func (g *Group) Key() []byte { return append([]byte(groupPrefix), g.Name...) }

func appendHead(dst []byte, kind byte, features uint32) []byte {
	return binary.LittleEndian.AppendUint32(append(dst, valueVersion, kind, 0, 0), features)
}

func appendText(dst []byte, s string) []byte { return append(append(dst, byte(len(s))), s...) }

// Append appends a host's value to dst. The host must be valid.
func (h *Host) Append(dst []byte) []byte {
	var features uint32
	if h.Insecure {
		features |= insecureBit
	}
	if h.Leaves {
		features |= leavesBit
	}
	if h.Maintenance {
		features |= serviceBit
	}
	dst = append(appendHead(dst, kindHost, features), h.ID[:]...)
	dst = append(appendText(dst, h.Zone), byte(len(h.Addresses)))
	for _, a := range h.Addresses {
		dst = appendText(dst, a)
	}
	return dst
}

// Append appends a group's value to dst. The group must be valid.
func (g *Group) Append(dst []byte) []byte {
	dst = binary.LittleEndian.AppendUint64(appendHead(dst, kindGroup, 0), g.Life)
	dst = append(binary.LittleEndian.AppendUint64(dst, g.Next), g.RequireZones)
	dst = append(appendText(dst, g.Name), byte(len(g.Members)))
	for _, m := range g.Members {
		dst = append(binary.LittleEndian.AppendUint64(dst, m.ID), m.Host[:]...)
	}
	return dst
}

// Take puts one key and its value into the roster, which is to be sorted and checked
// afterwards. Keys of another prefix are not its own, and are an error.
func (r *Roster) Take(key, value []byte) error {
	c := &cutter{b: value}
	switch k := string(key); {
	case strings.HasPrefix(k, hostPrefix):
		h := c.host()
		if err := c.end(k); err != nil {
			return err
		}
		if k != string(h.Key()) {
			return fmt.Errorf("roster: key %q: %w: it holds host %s", k, format.ErrCorrupt, h.ID)
		}
		r.Hosts = append(r.Hosts, h)
	case strings.HasPrefix(k, groupPrefix):
		g := c.group()
		if err := c.end(k); err != nil {
			return err
		}
		if k != string(g.Key()) {
			return fmt.Errorf("roster: key %q: %w: it holds group %q", k, format.ErrCorrupt, g.Name)
		}
		r.Groups = append(r.Groups, g)
	default:
		return fmt.Errorf("roster: key %q: %w: a kind of record that this release does not know", k, format.ErrNewer)
	}
	return nil
}

// cutter takes fields off a value. After the first fault it returns zeros, and keeps the fault.
type cutter struct {
	b   []byte
	err error
}

func (c *cutter) cut(n int) []byte {
	if c.err == nil && len(c.b) < n {
		c.err = fmt.Errorf("%w: %d bytes are left for a field of %d", format.ErrCorrupt, len(c.b), n)
	}
	if c.err != nil {
		return make([]byte, min(n, valueHead*2)) // fields of a fixed length are no longer
	}
	p := c.b[:n]
	c.b = c.b[n:]
	return p
}

func (c *cutter) u8() int     { return int(c.cut(1)[0]) }
func (c *cutter) u64() uint64 { return binary.LittleEndian.Uint64(c.cut(8)) }
func (c *cutter) id() uuid.UUID {
	return uuid.UUID(c.cut(16))
}

func (c *cutter) text() string {
	n := c.u8()
	if c.err != nil {
		return ""
	}
	p := c.cut(n)
	if c.err != nil {
		return ""
	}
	return string(p)
}

// head takes the head of a value, and returns its features.
func (c *cutter) head(kind byte, known uint32) uint32 {
	p := c.cut(valueHead)
	if c.err != nil {
		return 0
	}
	features := binary.LittleEndian.Uint32(p[4:])
	switch {
	case p[0] != valueVersion || p[2] != 0 || p[3] != 0:
		c.err = fmt.Errorf("%w: a value of version %d, this release reads %d", format.ErrNewer, p[0], valueVersion)
	case features&^known != 0:
		c.err = fmt.Errorf("%w: a value with features %#x", format.ErrNewer, features&^known)
	case p[1] != kind:
		c.err = fmt.Errorf("%w: a value of kind %d, not %d", format.ErrCorrupt, p[1], kind)
	}
	return features
}

func (c *cutter) host() (h Host) {
	features := c.head(kindHost, insecureBit|leavesBit|serviceBit)
	h.Insecure, h.Leaves, h.Maintenance = features&insecureBit != 0, features&leavesBit != 0, features&serviceBit != 0
	h.ID, h.Zone = c.id(), c.text()
	for n := c.u8(); n > 0 && c.err == nil; n-- {
		h.Addresses = append(h.Addresses, c.text())
	}
	return h
}

func (c *cutter) group() (g Group) {
	c.head(kindGroup, 0)
	g.Life, g.Next, g.RequireZones, g.Name = c.u64(), c.u64(), uint8(c.u8()), c.text()
	for n := c.u8(); n > 0 && c.err == nil; n-- {
		g.Members = append(g.Members, Member{ID: c.u64(), Host: c.id()})
	}
	return g
}

func (c *cutter) end(key string) error {
	if c.err == nil && len(c.b) > 0 {
		c.err = fmt.Errorf("%w: %d bytes behind the last field", format.ErrNewer, len(c.b))
	}
	if c.err != nil {
		return fmt.Errorf("roster: key %q: %w", key, c.err)
	}
	return nil
}
