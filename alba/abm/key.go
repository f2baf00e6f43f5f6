package abm

import (
	"context"
	"encoding/binary"
	"fmt"

	"openvstorage/alba/nsm/record"
	"openvstorage/alba/nsm/userfn"
)

// KeyCheckV1 is the kind of a check value that is object.KeyCheck of the key.
const KeyCheckV1 = 1

// KeyCheck is what a master key is recognised by. The key itself is not stored.
type KeyCheck struct {
	Number uint64 // of the key, above 0
	Kind   uint8  // how Value is made
	Value  [32]byte
}

// Fields implements record.Record: U8 kind, Hash value.
func (k *KeyCheck) Fields(c *record.Codec) {
	c.U8(&k.Kind)
	c.Hash(&k.Value)
}

// keyArg: U64 number, U8 kind, Hash value.
type keyArg struct{ KeyCheck }

func (a *keyArg) Fields(c *record.Codec) {
	c.U64(&a.Number)
	a.KeyCheck.Fields(c)
}

func keyCheckKey(number uint64) []byte { return key(tableKey, number) }

// putKey records the check value of a key for good. Repeating it is no error; another value
// is refused.
func putKey(tx userfn.Tx, a *keyArg) (*userfn.Empty, error) {
	if a.Number == 0 || a.Kind == 0 {
		return nil, invalid("master key %d: check value of kind %d", a.Number, a.Kind)
	}
	if _, err := loadBackend(tx); err != nil {
		return nil, err
	}
	var old KeyCheck
	switch ok, err := load(tx, keyCheckKey(a.Number), &old); {
	case err != nil:
		return nil, err
	case ok && old.Kind == a.Kind && old.Value == a.Value:
		return &userfn.Empty{}, nil
	case ok:
		return nil, userfn.Errorf(userfn.CodeExists, "master key %d: another key has that number", a.Number)
	}
	n, base := 0, key(tableKey)
	tx.Range(base, userfn.PrefixEnd(base), MaxKeys, func(_, _ []byte) bool { n++; return true })
	if n >= MaxKeys {
		return nil, userfn.Errorf(userfn.CodeFull, "master key %d: there are %d, the most that there may be", a.Number, n)
	}
	return &userfn.Empty{}, store(tx, keyCheckKey(a.Number), &a.KeyCheck)
}

// PutKeyCheck records what a master key is recognised by. ErrExists: the number
// has another key.
func (c *Client) PutKeyCheck(ctx context.Context, k KeyCheck) error {
	return c.do(ctx, namePutKey, &keyArg{k})
}

// KeyChecks returns what all master keys are recognised by, in order of number.
func (c *Client) KeyChecks(ctx context.Context, how userfn.Consistency) ([]KeyCheck, error) {
	base := key(tableKey)
	pairs, err := c.list(ctx, base, nil, MaxKeys, how)
	if err != nil {
		return nil, err
	}
	list := make([]KeyCheck, len(pairs))
	for i, p := range pairs {
		if len(p.Key) != len(base)+8 {
			return nil, userfn.Errorf(userfn.CodeCorrupt, "key %q: not that of a master key's check value", p.Key)
		}
		list[i].Number = binary.BigEndian.Uint64(p.Key[len(base):])
		if err := decode(p.Key, p.Value, &list[i]); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// keys demands that every check value can be read and has a number.
func (c *checker) keys() error {
	_, err := all(c.tx, key(tableKey), func(k []byte, v *KeyCheck) error {
		if len(k) != prefixSize+8 || v.Kind == 0 {
			return fmt.Errorf("master key of key %q: kind %d", k, v.Kind)
		}
		return nil
	})
	return err
}
