package wire

import (
	"encoding/binary"
	"fmt"
	"io"
	"strings"

	"github.com/google/uuid"

	"openvstorage/internal/format"
)

// prefaceMagic begins either side of a connection.
const prefaceMagic = "OVSWIRE1"

// Sizes of a preface, in bytes.
const (
	prefaceSize = 128
	nameMax     = 64   // of a service or a group
	reasonMax   = 1024 // of a refusal
)

// Versions of the framing that this release speaks.
const (
	versionNewest = 1
	versionOldest = 1
)

// prefaceKind says what a preface is.
type prefaceKind uint16

const (
	hello   prefaceKind = 1 // by whoever dialled; its text: service, zero byte, group
	welcome prefaceKind = 2 // the answer; from now on there are frames
	refusal prefaceKind = 3 // the answer; its text: why, in words. The connection ends
)

// preface is what either side says first.
type preface struct {
	kind           prefaceKind
	newest, oldest uint16 // versions of the framing
	id             Identity
	life           uint64
	minLevel       uint32
	windows        [windows]uint32 // bytes that the sender of the preface takes
	slots          [priorities]uint32
	bodyMax        uint32
	code           Code // of a refusal
	text           string
}

// Identity is who a side says it is.
type Identity struct {
	Cluster    uuid.UUID // both sides must have the same
	Host       uuid.UUID // a claim; on TLS, compare it with the certificate
	Generation uint64    // of the host's data directory
	Level      uint32    // feature level
}

func (p *preface) append(dst []byte) []byte {
	le := binary.LittleEndian
	at := len(dst)
	dst = append(dst, prefaceMagic...)
	for _, v := range [...]uint16{p.newest, p.oldest, uint16(p.kind), uint16(len(p.text))} {
		dst = le.AppendUint16(dst, v)
	}
	dst = append(dst, p.id.Cluster[:]...)
	dst = append(dst, p.id.Host[:]...)
	dst = le.AppendUint64(dst, p.life)
	dst = le.AppendUint64(dst, p.id.Generation)
	dst = le.AppendUint32(dst, p.id.Level)
	dst = le.AppendUint32(dst, p.minLevel)
	for _, w := range p.windows {
		dst = le.AppendUint32(dst, w)
	}
	for _, n := range p.slots {
		dst = le.AppendUint32(dst, n)
	}
	dst = le.AppendUint32(dst, p.bodyMax)
	dst = le.AppendUint16(dst, uint16(p.code))
	dst = append(dst, make([]byte, prefaceSize-8-(len(dst)-at))...) // room for later versions
	dst = le.AppendUint32(dst, format.CRC([]byte(p.text)))
	dst = le.AppendUint32(dst, format.CRC(dst[at:]))
	return append(dst, p.text...)
}

// decodePreface reads the fixed part of a preface, and says how long its text is.
func decodePreface(b []byte) (p preface, text int, sum uint32, err error) {
	_ = b[prefaceSize-1]
	le := binary.LittleEndian
	if string(b[:8]) != prefaceMagic {
		return p, 0, 0, fmt.Errorf("%w: the other side does not speak this protocol: it began with %q", ErrProtocol, b[:8])
	}
	if got, want := format.CRC(b[:prefaceSize-4]), le.Uint32(b[prefaceSize-4:]); got != want {
		return p, 0, 0, fmt.Errorf("%w: preface: it is %08x, not %08x", ErrChecksum, got, want)
	}
	p.newest, p.oldest, p.kind = le.Uint16(b[8:]), le.Uint16(b[10:]), prefaceKind(le.Uint16(b[12:]))
	text = int(le.Uint16(b[14:]))
	p.id.Cluster, p.id.Host = uuid.UUID(b[16:32]), uuid.UUID(b[32:48])
	p.life, p.id.Generation = le.Uint64(b[48:]), le.Uint64(b[56:])
	p.id.Level, p.minLevel = le.Uint32(b[64:]), le.Uint32(b[68:])
	for i := range p.windows {
		p.windows[i] = le.Uint32(b[72+4*i:])
	}
	for i := range p.slots {
		p.slots[i] = le.Uint32(b[88+4*i:])
	}
	p.bodyMax, p.code = le.Uint32(b[96:]), Code(le.Uint16(b[100:]))
	if text > reasonMax {
		return p, 0, 0, fmt.Errorf("%w: %w: a preface with %d bytes of text, at most %d may be", ErrProtocol, ErrTooLarge, text, reasonMax)
	}
	return p, text, le.Uint32(b[prefaceSize-8:]), nil
}

// readPreface reads a preface, and nothing behind it. The caller bounds the time.
func readPreface(r io.Reader) (preface, error) {
	var b [prefaceSize + reasonMax]byte
	if _, err := io.ReadFull(r, b[:prefaceSize]); err != nil {
		return preface{}, fmt.Errorf("preface: %w", err)
	}
	p, n, sum, err := decodePreface(b[:prefaceSize])
	if err != nil {
		return p, err
	}
	text := b[prefaceSize : prefaceSize+n]
	if _, err := io.ReadFull(r, text); err != nil {
		return p, fmt.Errorf("preface: %w", err)
	}
	if got := format.CRC(text); got != sum {
		return p, fmt.Errorf("%w: text of the preface: it is %08x, not %08x", ErrChecksum, got, sum)
	}
	p.text = string(text)
	return p, nil
}

// names takes the text of a hello apart.
func (p *preface) names() (service, group string, err error) {
	service, group, ok := strings.Cut(p.text, "\x00")
	if !ok || !goodName(service) || group != "" && !goodName(group) {
		return "", "", fmt.Errorf("%w: a hello with the names %q", ErrProtocol, p.text)
	}
	return service, group, nil
}

// goodName reports whether s can be a service or a group: 1-64 bytes of printable ASCII.
func goodName(s string) bool {
	if s == "" || len(s) > nameMax {
		return false
	}
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// speaks checks that there is a version that both sides speak.
func (p *preface) speaks() error {
	if p.oldest > versionNewest || p.newest < versionOldest {
		return fmt.Errorf("%w: versions %d-%d of the wire there, %d-%d here: upgrade the older host", ErrVersion, p.oldest, p.newest, versionOldest, versionNewest)
	}
	return nil
}

// fits checks what both sides check of the other's preface: cluster, life, level, and
// limits that can be kept. mine is the own preface.
func (p *preface) fits(mine *preface) error {
	switch {
	case p.id.Cluster != mine.id.Cluster:
		return fmt.Errorf("%w: %v there, %v here", ErrCluster, p.id.Cluster, mine.id.Cluster)
	case p.life != mine.life:
		return fmt.Errorf("%w: life %d there, %d here; a recovery made the newer one, and what is of the older must join anew", ErrLife, p.life, mine.life)
	case p.id.Level < mine.minLevel, mine.id.Level < p.minLevel:
		return fmt.Errorf("%w: level %d there, which needs %d or more; level %d here, which needs %d or more: upgrade the older host",
			ErrLevel, p.id.Level, p.minLevel, mine.id.Level, mine.minLevel)
	case p.bodyMax > BodyMax:
		return fmt.Errorf("%w: a preface that announces bodies of %d bytes", ErrProtocol, p.bodyMax)
	}
	for prio := range priorities {
		small, large := int64(p.windows[2*prio]), int64(p.windows[2*prio+1])
		if small < smallWindowMin || large < largeWindowMin(int64(p.bodyMax)) || p.slots[prio] == 0 || p.slots[prio] > slotsMax {
			return fmt.Errorf("%w: a preface with windows of %d and %d bytes and %d requests", ErrProtocol, small, large, p.slots[prio])
		}
	}
	return nil
}

// Smaller windows could deadlock: up to a quarter of a window may be free without the peer
// having been told.
const (
	smallWindowMin = 2 * smallMax
	slotsMax       = 1 << 16
)

func largeWindowMin(body int64) int64 { return 2 * (overhead + HeaderMax + body) }
