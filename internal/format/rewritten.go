package format

import "fmt"

// DecodeRewritten reads the header of a file that its reader writes anew, whole.
// What the reader does not know would be lost then, so it refuses, beyond what
// DecodeHeader does, any newer version and any compatible feature.
func DecodeRewritten(b []byte, want Kind, version uint16, features uint32) (Header, error) {
	h, err := DecodeHeader(b, want, version, features)
	if err != nil {
		return h, err
	}
	if h.Version > version {
		return h, fmt.Errorf("%w: %v format %d, this release writes it anew as %d and would lose what is new", ErrNewer, h.Kind, h.Version, version)
	}
	if h.Compatible != 0 {
		return h, fmt.Errorf("%w: %v with compatible features %#x, which this release would lose as it writes it anew", ErrNewer, h.Kind, h.Compatible)
	}
	return h, nil
}
