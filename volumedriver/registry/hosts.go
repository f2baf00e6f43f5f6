package registry

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"
)

// The entry of a host, little-endian. Like other values here it is rewritten whole by
// whoever changes it, so that a reader refuses what it does not know. These bytes are on
// disk. They never change.
//
//	0      1  version, 1
//	1      1  flags: bit 0 founder
//	2      2  zero
//	4      4  incompatible features: none are known
//	8     24  zero: room for later releases
//
// The features value and the founder's entry come in one step: from then on an older
// release, which knows of no owners, refuses the registry.
const (
	hostVersion = 1
	hostSize    = 32
	flagFounder = 1 << 0
)

var hostFields = []field{{2, 4, "a field behind the flags"}, {4, 8, "incompatible features"}, {8, hostSize, "a field behind the features"}}

// Entry is a host that uses the registry.
type Entry struct {
	Host uuid.UUID
	// Founder: it was the first. What an older release kept here is the founder's: it
	// lay in its data directory.
	Founder bool
}

func (e Entry) encode() []byte {
	b := make([]byte, hostSize)
	b[0] = hostVersion
	if e.Founder {
		b[1] = flagFounder
	}
	return b
}

func decodeEntry(host uuid.UUID, b []byte) (Entry, error) {
	err := checkVersion(b, hostVersion)
	switch {
	case err != nil:
	case len(b) < hostSize:
		err = corrupt("it has %d bytes", len(b))
	case len(b) > hostSize:
		err = newer("it has %d bytes", len(b))
	case b[1]&^flagFounder != 0:
		err = newer("flags %#x", b[1]&^flagFounder)
	case host == uuid.Nil:
		err = corrupt("no host has this UUID")
	default:
		err = checkFields(b, hostFields)
	}
	if err != nil {
		return Entry{}, fmt.Errorf("registry: entry of host %s: %w", host, err)
	}
	return Entry{Host: host, Founder: b[1]&flagFounder != 0}, nil
}

// Hosts returns the hosts that use the registry, in order of UUID: those that have
// claimed a vDisk or begun to make one. There is none in what an older release wrote.
func (r *Registry) Hosts(ctx context.Context) ([]Entry, error) {
	end, err := r.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer end()
	return entries(ctx, r.keys)
}

func entries(ctx context.Context, keys Keys) (list []Entry, err error) {
	var failed error
	err = keys.Range(ctx, []byte(hostPrefix), func(key, value []byte) bool {
		host, err := uuid.FromBytes(key[len(hostPrefix):])
		if err != nil {
			failed = corrupt("key %q: %v", key, err)
			return false
		}
		e, err := decodeEntry(host, value)
		if err != nil {
			failed = err
			return false
		}
		list = append(list, e)
		return true
	})
	return list, errors.Join(err, failed)
}

// entering returns the swaps that keep host among those that use the registry, or enter
// it, and the founder. They are part of each claim and of each intent: a host whose entry
// is removed can do neither under it any more.
func (r *Registry) entering(ctx context.Context, host uuid.UUID) (swaps []Swap, founder uuid.UUID, err error) {
	if host == uuid.Nil {
		return nil, founder, errors.New("registry: a host without a UUID claims nothing")
	}
	features, list, err := r.readHosts(ctx)
	if err != nil {
		return nil, founder, err
	}
	entered := false
	for _, e := range list {
		if e.Founder {
			founder = e.Host
		}
		entered = entered || e.Host == host
	}
	switch {
	case !hasOwners(features):
		return []Swap{
			{Key: []byte(featuresKey), Old: features, New: withOwners()},
			{Key: hostKey(host), New: Entry{host, true}.encode()},
		}, host, nil
	case !entered:
		return []Swap{{Key: hostKey(host), New: Entry{Host: host}.encode()}}, founder, nil
	}
	have := Entry{host, host == founder}.encode()
	return []Swap{{Key: hostKey(host), Old: have, New: have}}, founder, nil
}

// readHosts returns the features value and the hosts as they are together: the first
// host's entry comes in one step with the feature. The founder's entry may be gone.
func (r *Registry) readHosts(ctx context.Context) (features []byte, list []Entry, err error) {
	for range attempts {
		if features, err = r.keys.Get(ctx, []byte(featuresKey)); err == nil {
			err = checkFeatures(features)
		}
		if err != nil {
			return nil, nil, err
		}
		if list, err = entries(ctx, r.keys); err != nil {
			return nil, nil, err
		}
		if hasOwners(features) || len(list) == 0 {
			return features, list, nil
		}
	}
	return nil, nil, corrupt("registry: %d hosts use it, and it says that hosts are not known in it", len(list))
}
