package sco

import (
	"fmt"
	"strconv"
)

// ClusterSize is the unit of mapping in bytes.
const ClusterSize = 4096

// Number names an SCO within its vDisk; it is used once in the vDisk's life.
type Number uint64

// MaxNumber is the largest SCO number: 36 bits.
const MaxNumber Number = 1<<36 - 1

// Name returns the object (and file) name of the SCO: "sco-" and the number
// in nine hexadecimal digits, so that names sort as numbers do.
func (n Number) Name() string { return fmt.Sprintf("sco-%09x", uint64(n)) }

// ParseName reads what Name writes.
func ParseName(name string) (Number, error) {
	if len(name) != 13 || name[:4] != "sco-" {
		return 0, fmt.Errorf("sco: %q is not an SCO's name", name)
	}
	v, err := strconv.ParseUint(name[4:], 16, 36)
	if err != nil || Number(v).Name() != name {
		return 0, fmt.Errorf("sco: %q is not an SCO's name", name)
	}
	return Number(v), nil
}

// Origin indexes the vDisk's origin table: which vDisk's namespace holds it.
// A vDisk that is no clone has one origin, 0: itself.
type Origin uint16

// MaxOrigin is the largest origin: 12 bits.
const MaxOrigin Origin = 1<<12 - 1

// MaxIndex is the largest cluster index in an SCO: 14 bits, 64 MiB.
const MaxIndex = 1<<14 - 1

// Kind says what a Location stands for.
type Kind uint8

// Kinds of location. Numbers are on disk.
const (
	KindHole Kind = 0 // never written, or trimmed: reads as zeros. Only the zero word
	KindData Kind = 1 // 4 KiB at Index in SCO Number of Origin
	KindZero Kind = 2 // written as zeros without data; counts as allocated
)

// Location says where a cluster lives. 64 bits, on disk:
//
//	bits  0-13  index: which 4 KiB block of the SCO, its header being block 0
//	bits 14-49  SCO number
//	bits 50-61  origin
//	bits 62-63  kind
//
// The zero word is Hole.
type Location uint64

// Hole is the location of a cluster that was never written or was trimmed.
const Hole Location = 0

// Zero is the location of a cluster that was written as zeros.
const Zero = Location(KindZero) << 62

// At returns the location of block index of an SCO.
func At(o Origin, n Number, index int) Location {
	return Location(KindData)<<62 | Location(o&MaxOrigin)<<50 | Location(n&MaxNumber)<<14 | Location(index&MaxIndex)
}

// Kind returns the location's kind.
func (l Location) Kind() Kind { return Kind(l >> 62) }

// Origin returns the index into the origin table. Only for KindData.
func (l Location) Origin() Origin { return Origin(l>>50) & MaxOrigin }

// Number returns the SCO number. Only for KindData.
func (l Location) Number() Number { return Number(l>>14) & MaxNumber }

// Index returns the block within the SCO. Only for KindData.
func (l Location) Index() int { return int(l & MaxIndex) }

// Add returns the location n blocks further in the same SCO. Only for
// KindData; other kinds are returned as they are.
func (l Location) Add(n int) Location {
	if l.Kind() != KindData {
		return l
	}
	return l + Location(n)
}

func (l Location) String() string {
	switch l.Kind() {
	case KindHole:
		return "hole"
	case KindZero:
		return "zero"
	case KindData:
		return fmt.Sprintf("%d:%s:%d", l.Origin(), l.Number().Name(), l.Index())
	}
	return fmt.Sprintf("location(%#x)", uint64(l))
}
