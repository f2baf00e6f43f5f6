package groups

import (
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"openvstorage/internal/format"
	"openvstorage/internal/generation"
)

// RecoveryKey, in a group that a person has had made anew, says what was decided.
const RecoveryKey = "host/recovery"

// What a group can be made anew from. Numbers are stored.
const (
	FromBackup  byte = 1
	FromNothing byte = 2 // a group that knew nothing; Revision and OfLife are 0
)

// Recovery is a person's decision that a group is made anew, in a later life: what was
// written in the earlier one and is not in it is given up. Its value, little-endian:
//
//	 0 1 version, 1
//	 1 1 from what: 1 a backup, 2 nothing
//	 2 6 zero
//	 8 8 when, nanoseconds since 1970 UTC
//	16 8 life, from then on
//	24 8 revision of the group in the backup
//	32 8 life of the backup
//
// It is for people, and for programs that look for what was lost: no rule rests on it. These
// bytes are stored. They never change.
type Recovery struct {
	From     byte
	Time     time.Time
	Life     uint64
	Revision uint64
	OfLife   uint64
}

const (
	recoveryVersion = 1
	recoverySize    = 40
)

// Append appends the value to dst.
func (r Recovery) Append(dst []byte) []byte {
	dst = append(dst, recoveryVersion, r.From, 0, 0, 0, 0, 0, 0)
	for _, v := range []uint64{uint64(r.Time.UnixNano()), r.Life, r.Revision, r.OfLife} {
		dst = binary.LittleEndian.AppendUint64(dst, v)
	}
	return dst
}

// DecodeRecovery reads what Append made.
func DecodeRecovery(b []byte) (r Recovery, err error) {
	switch {
	case len(b) > 0 && b[0] > recoveryVersion, len(b) > recoverySize:
		return r, fmt.Errorf("record of a recovery: %w: version %d, %d bytes", format.ErrNewer, b[0], len(b))
	case len(b) < recoverySize || b[0] == 0:
		return r, fmt.Errorf("record of a recovery: %w: %d bytes", format.ErrCorrupt, len(b))
	case format.NotZero(b[2:8]) >= 0 || b[1] != FromBackup && b[1] != FromNothing:
		return r, fmt.Errorf("record of a recovery: %w: from %d, %x", format.ErrNewer, b[1], b[2:8])
	}
	le := binary.LittleEndian
	return Recovery{
		From: b[1], Time: time.Unix(0, int64(le.Uint64(b[8:]))).UTC(), Life: le.Uint64(b[16:]), Revision: le.Uint64(b[24:]), OfLife: le.Uint64(b[32:]),
	}, nil
}

// MarkIn returns the generation that a key of a group holds, if it is the key in which the
// directory that the groups were made in keeps the newest that the group has seen.
func MarkIn(key, value []byte) (m generation.Mark, ok bool, err error) {
	if string(key) != generationName {
		return m, false, nil
	}
	m, err = generation.Decode(value)
	return m, err == nil, err
}

// OwnKeys are the keys in which each group of a data directory keeps what all of them say of
// that directory: the newest generation, and which members it has. host is that of the
// directory, id that of the directory that the groups were made in. A group that is made anew
// beside others gets their values: so it is as new as they are.
func OwnKeys(id, host uuid.UUID) [][]byte {
	g := &Groups{opt: Options{ID: id, Host: host}}
	return [][]byte{g.generationKey(), g.groupsKey()}
}

// WitnessIn returns of whom a key of a group is the witness, if it is one's.
func WitnessIn(key []byte) (name string, ok bool) {
	if len(key) <= len(witnessPrefix) || string(key[:len(witnessPrefix)]) != witnessPrefix {
		return "", false
	}
	return string(key[len(witnessPrefix):]), true
}

// DirOf is the name under DIR/arakoon, and in the record of the data directory, of a member.
func DirOf(group string, member uint64) string { return Spec{Name: group, Member: member}.dirName() }

// NameOf is the group of a member's directory.
func NameOf(dir string) string {
	name, number, ok := strings.Cut(dir, ".")
	if _, err := strconv.ParseUint(number, 10, 64); ok && err == nil {
		return name
	}
	return dir
}
