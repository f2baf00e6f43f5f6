package ec

import (
	"errors"
	"fmt"
	"sync"
	"unsafe"

	"github.com/klauspost/reedsolomon"
)

// ID names a code. It is in every manifest.
type ID uint8

// Vandermonde is GF(2^8), polynomial 0x11d, systematic Vandermonde matrix.
const Vandermonde ID = 1

// MaxWidth bounds k+m. GF(2^8) would allow 255; with 64 a set of the
// fragments of a chunk is one word, and wider codes save next to no room.
const MaxWidth = 64

// Align is the alignment of the shards that Alloc returns: what direct I/O needs, which is
// more than the arithmetic needs.
const Align = 4096

// Errors that callers match with errors.Is.
var (
	// ErrTooFew: fewer than k shards are left.
	ErrTooFew = errors.New("too few shards")
	// ErrCode: there is no such code, or none of that width.
	ErrCode = errors.New("no such erasure code")
	// ErrShards: the shards' number or lengths are not the code's.
	ErrShards = errors.New("not the shards of this code")
)

// serialMax is the number of data bytes up to which one goroutine does the work: for less,
// handing over to others costs more than it gains.
const serialMax = 1 << 20

// Code is a code of some width. It is immutable and safe for concurrent use.
type Code struct {
	id   ID
	k, m int
	// serial works in the caller's goroutine, parallel on all cores. Both
	// are nil when there is nothing to calculate: m = 0 or k = 1.
	serial, parallel reedsolomon.Encoder
}

// maxCached bounds the codes that New keeps. A store uses a handful.
const maxCached = 64

type key struct {
	id   ID
	k, m int
}

var cache struct {
	sync.RWMutex
	codes map[key]*Code
}

// Check says whether there is a code of that id and width.
func Check(id ID, k, m int) error {
	if id != Vandermonde {
		return fmt.Errorf("%w: id %d, this release knows %d", ErrCode, id, Vandermonde)
	}
	if k < 1 || m < 0 || k > MaxWidth || m > MaxWidth || k+m > MaxWidth {
		return fmt.Errorf("%w: %d+%d, at least 1 data shard and at most %d in all", ErrCode, k, m, MaxWidth)
	}
	return nil
}

// New returns the code of that id with k data and m parity shards. Codes are
// shared: asking again costs a look-up.
func New(id ID, k, m int) (*Code, error) {
	if err := Check(id, k, m); err != nil {
		return nil, err
	}
	at := key{id, k, m}
	cache.RLock()
	c := cache.codes[at]
	cache.RUnlock()
	if c != nil {
		return c, nil
	}
	c = &Code{id: id, k: k, m: m}
	if m > 0 && k > 1 {
		// Inverted matrices are kept only if there are few patterns of loss, so that
		// the memory for them is bounded.
		few := reedsolomon.WithInversionCache(m <= 4 && k+m <= 24)
		var err error
		if c.serial, err = reedsolomon.New(k, m, few, reedsolomon.WithMaxGoroutines(1)); err != nil {
			return nil, fmt.Errorf("erasure code %d+%d: %w", k, m, err)
		}
		if c.parallel, err = reedsolomon.New(k, m, few); err != nil {
			return nil, fmt.Errorf("erasure code %d+%d: %w", k, m, err)
		}
	}
	cache.Lock()
	defer cache.Unlock()
	if old := cache.codes[at]; old != nil {
		return old, nil
	}
	if cache.codes == nil || len(cache.codes) >= maxCached {
		cache.codes = make(map[key]*Code)
	}
	cache.codes[at] = c
	return c, nil
}

// ID returns the code's id.
func (c *Code) ID() ID { return c.id }

// Data returns k.
func (c *Code) Data() int { return c.k }

// Parity returns m.
func (c *Code) Parity() int { return c.m }

// Width returns k+m.
func (c *Code) Width() int { return c.k + c.m }

func (c *Code) encoder(each int) reedsolomon.Encoder {
	if each*c.k <= serialMax {
		return c.serial
	}
	return c.parallel
}

// Encode fills the parity shards. All k+m shards have one length above zero.
func (c *Code) Encode(shards [][]byte) error {
	each, present, err := c.check(shards)
	if err != nil {
		return err
	}
	if present != c.Width() {
		return fmt.Errorf("%w: %d of %d+%d are there; encode wants room for all", ErrShards, present, c.k, c.m)
	}
	switch {
	case c.m == 0:
		return nil
	case c.k == 1:
		for _, s := range shards[1:] {
			copy(s, shards[0])
		}
		return nil
	}
	return c.encoder(each).Encode(shards)
}

// Reconstruct makes the wanted shards that are lost from k others. A shard of length zero is
// lost. A shard is made in the capacity of its slice if that is enough, else it is
// allocated. All other shards stay as they are. Their content is not checked.
func (c *Code) Reconstruct(shards [][]byte, wanted []int) error {
	each, present, err := c.check(shards)
	if err != nil {
		return err
	}
	if present < c.k {
		return fmt.Errorf("%w: %d of %d+%d are there, %d are needed", ErrTooFew, present, c.k, c.m, c.k)
	}
	required := make([]bool, c.Width())
	for _, i := range wanted {
		if i < 0 || i >= c.Width() {
			return fmt.Errorf("%w: shard %d of %d+%d is wanted", ErrShards, i, c.k, c.m)
		}
		if len(shards[i]) == 0 {
			required[i] = true
			if cap(shards[i]) < each {
				shards[i] = Alloc(1, each)[0][:0]
			}
		}
	}
	switch {
	case c.m == 0:
		return nil // k are there: all
	case c.k == 1:
		c.replicate(shards, required)
		return nil
	}
	return c.encoder(each).ReconstructSome(shards, required)
}

// replicate copies any shard that is there to those that are required.
func (c *Code) replicate(shards [][]byte, required []bool) {
	var from []byte
	for _, s := range shards {
		if len(s) > 0 {
			from = s
			break
		}
	}
	for i, want := range required {
		if want {
			shards[i] = shards[i][:len(from)]
			copy(shards[i], from)
		}
	}
}

// Verify reports whether the parity shards are those of the data shards. All
// k+m are there.
func (c *Code) Verify(shards [][]byte) (bool, error) {
	each, present, err := c.check(shards)
	if err != nil {
		return false, err
	}
	if present != c.Width() {
		return false, fmt.Errorf("%w: %d of %d+%d are there; verify wants all", ErrTooFew, present, c.k, c.m)
	}
	switch {
	case c.m == 0:
		return true, nil
	case c.k == 1:
		for _, s := range shards[1:] {
			if string(s) != string(shards[0]) {
				return false, nil
			}
		}
		return true, nil
	}
	return c.encoder(each).Verify(shards)
}

// check returns the length of the shards that are there, and their number.
func (c *Code) check(shards [][]byte) (each, present int, err error) {
	if len(shards) != c.Width() {
		return 0, 0, fmt.Errorf("%w: %d shards for %d+%d", ErrShards, len(shards), c.k, c.m)
	}
	for i, s := range shards {
		if len(s) == 0 {
			continue
		}
		if each == 0 {
			each = len(s)
		}
		if len(s) != each {
			return 0, 0, fmt.Errorf("%w: shard %d has %d bytes, others have %d", ErrShards, i, len(s), each)
		}
		present++
	}
	if present == 0 {
		return 0, 0, fmt.Errorf("%w: none of %d+%d has any bytes", ErrTooFew, c.k, c.m)
	}
	return each, present, nil
}

// Buffer returns n zero bytes at an address that is a multiple of Align.
func Buffer(n int) []byte {
	b := make([]byte, n+Align-1)
	skip := 0
	if len(b) > 0 {
		skip = int(-uintptr(unsafe.Pointer(unsafe.SliceData(b))) & (Align - 1))
	}
	return b[skip : skip+n : skip+n]
}

// Alloc returns n zero shards in one piece of memory, each bytes long and each
// at an address that is a multiple of Align; the room between them is unused.
func Alloc(n, each int) [][]byte {
	step := (each + Align - 1) &^ (Align - 1)
	return Cut(make([][]byte, 0, n), Buffer(n*step), n, step, each)
}

// Cut appends to dst n shards of buf, step bytes apart and each bytes long.
func Cut(dst [][]byte, buf []byte, n, step, each int) [][]byte {
	for i := range n {
		dst = append(dst, buf[i*step:i*step+each:i*step+each])
	}
	return dst
}
