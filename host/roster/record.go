package roster

import (
	"encoding/binary"
	"fmt"
	"net"
	"strconv"

	"github.com/google/uuid"

	"openvstorage/internal/format"
	"openvstorage/internal/generation"
)

// Prefix begins the key of each record; the 16 bytes of the host's UUID follow.
const Prefix = "hosts/"

// Limits of a record.
const (
	ZoneMax      = 64  // bytes of a zone's name
	ReleaseMax   = 64  // bytes of a release's
	AddressesMax = 8   // of each sort
	addressMax   = 255 // bytes of one
	HostsMax     = 1024
	recordMax    = 64 + ZoneMax + ReleaseMax + 2*(1+AddressesMax*(1+addressMax))
)

// A record, little-endian. Lengths are bytes of their own before what they measure.
//
//	 0  1 version, 1
//	 1  1 flags; bit 0: insecure, bit 1: it holds the config group
//	 2  2 zero
//	 4  4 incompatible features: none are known
//	 8 16 host
//	24 16 mark of the newest start: generation u64, its random number u64
//	40  4 feature level
//	44  . zone (1), release (1)
//	 .  . count u8 and addresses (1), count u8 and addresses for storage (1)
//
// Whoever reads a record may rewrite it, so what a reader does not know it refuses, as of
// a newer release. These bytes are stored, and on the wire. They never change.
const (
	recordVersion = 1
	flagInsecure  = 1 << 0
	flagConfig    = 1 << 1
	fixedSize     = 44
)

// Host says where a host is.
type Host struct {
	ID        uuid.UUID
	Mark      generation.Mark // of its newest start
	Level     uint32          // feature level of its release
	Insecure  bool            // it takes connections without TLS
	Config    bool            // it holds a member of the config group: records are read from it
	Zone      string          // "": none was said
	Release   string
	Addresses []string // HOST:PORT, the first is the one that it was told to listen on
	Storage   []string // HOST:PORT for traffic of storage; none: Addresses
}

// Check returns nil if the record can be stored.
func (h *Host) Check() error {
	switch {
	case h.ID == uuid.Nil:
		return fmt.Errorf("record of a host without a UUID")
	case len(h.Release) > ReleaseMax:
		return fmt.Errorf("host %s: release of %d bytes, at most %d", h.ID, len(h.Release), ReleaseMax)
	case len(h.Addresses) == 0:
		return fmt.Errorf("host %s has no address", h.ID)
	}
	if err := CheckZone(h.Zone); err != nil {
		return fmt.Errorf("host %s: %w", h.ID, err)
	}
	for _, list := range [][]string{h.Addresses, h.Storage} {
		if len(list) > AddressesMax {
			return fmt.Errorf("host %s: %d addresses, at most %d", h.ID, len(list), AddressesMax)
		}
		for _, a := range list {
			if err := CheckAddress(a); err != nil {
				return fmt.Errorf("host %s: %w", h.ID, err)
			}
		}
	}
	return nil
}

// CheckZone returns nil if a zone may have the name: letters, digits, and -._, or none.
func CheckZone(zone string) error {
	if len(zone) > ZoneMax {
		return fmt.Errorf("zone of %d bytes, at most %d", len(zone), ZoneMax)
	}
	for _, r := range zone {
		if (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '.' && r != '_' {
			return fmt.Errorf("zone %q: letters, digits, and -._ are allowed", zone)
		}
	}
	return nil
}

// CheckAddress returns nil if an address is HOST:PORT, with a host that others can dial.
func CheckAddress(a string) error {
	host, port, err := net.SplitHostPort(a)
	if err != nil || len(a) > addressMax {
		return fmt.Errorf("address %.80q: it is HOST:PORT", a)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return fmt.Errorf("address %.80q: the port is a number from 1 to 65535", a)
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		return fmt.Errorf("address %.80q names no machine: give the address by which other hosts reach this one", a)
	}
	for i := range len(host) {
		if host[i] <= ' ' || host[i] > '~' {
			return fmt.Errorf("address %.80q: it is HOST:PORT", a)
		}
	}
	return nil
}

// Encode returns the record's bytes. It must pass Check.
func (h *Host) Encode() []byte {
	var flags byte
	if h.Insecure {
		flags |= flagInsecure
	}
	if h.Config {
		flags |= flagConfig
	}
	b := append([]byte{recordVersion, flags}, make([]byte, 6)...)
	b = append(b, h.ID[:]...)
	b = h.Mark.Append(b)
	b = binary.LittleEndian.AppendUint32(b, h.Level)
	b = putText(putText(b, h.Zone), h.Release)
	return putTexts(putTexts(b, h.Addresses), h.Storage)
}

func putText(b []byte, s string) []byte { return append(append(b, byte(len(s))), s...) }

func putTexts(b []byte, list []string) []byte {
	b = append(b, byte(len(list)))
	for _, s := range list {
		b = putText(b, s)
	}
	return b
}

// Decode reads what Encode writes. The error matches format.ErrNewer or
// format.ErrCorrupt.
func Decode(b []byte) (h Host, err error) {
	fail := func(kind error, text string, args ...any) (Host, error) {
		return Host{}, fmt.Errorf("record of a host: %w: %s", kind, fmt.Sprintf(text, args...))
	}
	if len(b) < fixedSize || len(b) > recordMax {
		return fail(format.ErrCorrupt, "%d bytes", len(b))
	}
	features := binary.LittleEndian.Uint32(b[4:])
	switch {
	case b[0] != recordVersion:
		return fail(format.ErrNewer, "version %d, this release reads %d", b[0], recordVersion)
	case b[1]&^(flagInsecure|flagConfig) != 0 || b[2] != 0 || b[3] != 0 || features != 0:
		return fail(format.ErrNewer, "flags %#x, features %#x", b[1:4], features)
	}
	h.Insecure, h.Config = b[1]&flagInsecure != 0, b[1]&flagConfig != 0
	copy(h.ID[:], b[8:])
	if h.Mark, err = generation.Decode(b[24:40]); err != nil {
		return fail(err, "mark")
	}
	h.Level = binary.LittleEndian.Uint32(b[40:])
	c := texts{b: b[fixedSize:]}
	h.Zone, h.Release = c.text(), c.text()
	h.Addresses, h.Storage = c.list(), c.list()
	switch {
	case c.cut:
		return fail(format.ErrCorrupt, "it is cut off")
	case len(c.b) > 0:
		return fail(format.ErrNewer, "%d bytes behind the last field", len(c.b))
	}
	if err := h.Check(); err != nil {
		return fail(format.ErrCorrupt, "%v", err)
	}
	return h, nil
}

// texts takes texts off bytes.
type texts struct {
	b   []byte
	cut bool
}

func (c *texts) byte() int {
	if len(c.b) == 0 {
		c.cut = true
		return 0
	}
	n := c.b[0]
	c.b = c.b[1:]
	return int(n)
}

func (c *texts) text() string {
	n := c.byte()
	if n > len(c.b) {
		c.cut = true
		return ""
	}
	s := string(c.b[:n])
	c.b = c.b[n:]
	return s
}

func (c *texts) list() (all []string) {
	for range c.byte() {
		if c.cut {
			return nil
		}
		all = append(all, c.text())
	}
	return all
}
