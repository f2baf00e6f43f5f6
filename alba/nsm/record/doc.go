// Package record is the encoding of small bounded records: what the managers
// of ALBA keep in Arakoon and what travels in calls to them.
//
// A record is a version byte and then its fields in order:
//
//	U8, U16, U32, U64   that many bytes, little-endian
//	Enum                one byte, one of those that are listed
//	Bool                one byte, 0 or 1
//	ID                  16 bytes
//	Hash                32 bytes
//	Bytes, String       length u32, then the bytes
//	List                count u32, then the elements
//
// One method of a type, Fields, names its fields once and serves both
// directions, so that they cannot differ. Every length has a bound that is
// checked before anything is allocated. Decoding refuses a byte left over, a Bool
// that is neither 0 nor 1, and a version other than the oldest that has room for the
// values. So equal values have equal bytes, and equal bytes have equal values. Each
// type has versions of its own, from 1 on (Versioned). A newer version, and a byte of
// an Enum that is not known, are ErrNewer.
package record
