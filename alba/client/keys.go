package client

import (
	"context"
	"fmt"

	"openvstorage/alba/preset"
	"openvstorage/backend"
)

// keys gives the master keys that objects are sealed with.
type keys struct {
	key   func(number uint64) ([]byte, error)            // nil: there are none
	prove func(ctx context.Context, number uint64) error // nil: all are right
}

// master returns the master key of a scheme, nil if it has no cipher.
func (k *keys) master(s preset.Scheme) ([]byte, error) {
	if s.Cipher == preset.CipherNone {
		return nil, nil
	}
	if k.key == nil {
		return nil, fmt.Errorf("%w: master key %d is needed and no key file was given", backend.ErrKey, s.Key)
	}
	key, err := k.key(s.Key)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", backend.ErrKey, err)
	}
	return key, nil
}

// proven returns why the master key of a scheme may be another than it was. It is asked
// before something is sealed: nobody could open what is sealed with a wrong key.
func (k *keys) proven(ctx context.Context, s preset.Scheme) error {
	if s.Cipher == preset.CipherNone || k.prove == nil {
		return nil
	}
	return k.prove(ctx, s.Key)
}
