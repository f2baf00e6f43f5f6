package trust

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"fmt"

	"openvstorage/internal/format"
	"openvstorage/trust/internal/cost"
)

// The authority's key, sealed under a passphrase. Little-endian:
//
//	offset size field
//	 0      8   magic "OVSCAKEY"
//	 8      1   version, 1
//	 9      1   derivation: 1 is PBKDF2 with HMAC-SHA-256
//	10      1   cipher: 1 is AES-256-GCM
//	11      1   zero
//	12      4   rounds of the derivation, 100,000 to 10,000,000
//	16     16   salt
//	32     12   nonce
//	44      4   length of what follows, n, at most 16 KiB
//	48      n   the key as PKCS #8, sealed, with its tag of 16 bytes
//
// What is authenticated besides: bytes 0..47, and the SHA-256 of the authority's
// certificate. So a key does not pass for that of another certificate. Whatever does not
// open is the work of another passphrase or damaged: nothing tells these two apart.
// These bytes are stored. They never change.
const (
	sealMagic   = "OVSCAKEY"
	sealVersion = 1
	sealHead    = 48
	sealedMax   = 16 << 10

	// SealRounds is what a passphrase costs whoever tries one: so many HMACs, about 0.1 s
	// of one core. OWASP's figure for PBKDF2-HMAC-SHA256, 2023.
	SealRounds = 600_000
	roundsMax  = 10_000_000

	// PassphraseMin and PassphraseMax bound a passphrase, in bytes.
	PassphraseMin = 12
	PassphraseMax = 1024
)

// Seal returns the authority's key sealed under a passphrase. It takes as long as
// opening does, see SealRounds.
func (a *Authority) Seal(passphrase []byte) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(a.key)
	if err != nil {
		return nil, fmt.Errorf("trust: key of the authority: %w", err)
	}
	var salt [16]byte
	var nonce [12]byte
	if _, err := rand.Read(salt[:]); err != nil {
		return nil, fmt.Errorf("trust: salt: %w", err)
	}
	if _, err := rand.Read(nonce[:]); err != nil {
		return nil, fmt.Errorf("trust: nonce: %w", err)
	}
	return seal(der, a.Fingerprint(), passphrase, cost.Rounds, salt, nonce)
}

// CheckPassphrase returns nil if a key can be sealed under a passphrase.
func CheckPassphrase(passphrase []byte) error {
	if len(passphrase) < PassphraseMin || len(passphrase) > PassphraseMax {
		return fmt.Errorf("trust: %w: it has %d bytes; it is to have %d to %d", ErrPassphrase, len(passphrase), PassphraseMin, PassphraseMax)
	}
	return nil
}

func seal(der []byte, ca Fingerprint, passphrase []byte, rounds uint32, salt [16]byte, nonce [12]byte) ([]byte, error) {
	if err := CheckPassphrase(passphrase); err != nil {
		return nil, err
	}
	b := append([]byte(sealMagic), sealVersion, 1, 1, 0)
	b = binary.LittleEndian.AppendUint32(b, rounds)
	b = append(append(b, salt[:]...), nonce[:]...)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(der)+16))
	if len(der)+16 > sealedMax {
		return nil, invalid("key of the authority: %d bytes, at most %d", len(der), sealedMax-16)
	}
	aead, err := sealCipher(passphrase, salt[:], rounds)
	if err != nil {
		return nil, err
	}
	return aead.Seal(b, nonce[:], der, append(b[:sealHead:sealHead], ca[:]...)), nil
}

func sealCipher(passphrase, salt []byte, rounds uint32) (cipher.AEAD, error) {
	key, err := pbkdf2.Key(sha256.New, string(passphrase), salt, int(rounds), 32)
	if err != nil {
		return nil, fmt.Errorf("trust: key of a passphrase: %w", err)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("trust: key of a passphrase: %w", err)
	}
	return cipher.NewGCM(block)
}

// checkSealed returns nil if bytes have the form of a sealed key.
func checkSealed(b []byte) error {
	what := func(kind error, text string, args ...any) error {
		return fmt.Errorf("trust: sealed key of the authority: %w: "+text, append([]any{kind}, args...)...)
	}
	if len(b) < sealHead || len(b) > sealHead+sealedMax || string(b[:8]) != sealMagic {
		return what(format.ErrCorrupt, "%d bytes that do not begin with %s", len(b), sealMagic)
	}
	switch {
	case b[8] == 0:
		return what(format.ErrCorrupt, "version 0 does not exist")
	case b[8] != sealVersion:
		return what(format.ErrNewer, "version %d, this release reads up to %d", b[8], sealVersion)
	case b[9] != 1:
		return what(format.ErrNewer, "derivation %d", b[9])
	case b[10] != 1:
		return what(format.ErrNewer, "cipher %d", b[10])
	case b[11] != 0:
		return what(format.ErrNewer, "a field behind the cipher, %#x", b[11])
	}
	if rounds := binary.LittleEndian.Uint32(b[12:]); rounds < cost.Min || rounds > roundsMax {
		return what(format.ErrCorrupt, "%d rounds, which are %d to %d", rounds, cost.Min, roundsMax)
	}
	if n := binary.LittleEndian.Uint32(b[44:]); int64(n) != int64(len(b)-sealHead) || n < 16 {
		return what(format.ErrCorrupt, "%d bytes are said and %d are there", n, len(b)-sealHead)
	}
	return nil
}

// OpenAuthority opens a sealed key. cert is the authority's certificate. The error
// matches ErrPassphrase if the passphrase is not that of the key, format.ErrNewer or
// format.ErrCorrupt if the bytes are not what Seal writes.
func OpenAuthority(cert *x509.Certificate, sealed, passphrase []byte) (*Authority, error) {
	if err := checkSealed(sealed); err != nil {
		return nil, err
	}
	if len(passphrase) == 0 || len(passphrase) > PassphraseMax {
		return nil, fmt.Errorf("trust: %w: it has %d bytes", ErrPassphrase, len(passphrase))
	}
	aead, err := sealCipher(passphrase, sealed[16:32], binary.LittleEndian.Uint32(sealed[12:]))
	if err != nil {
		return nil, err
	}
	ca := FingerprintOf(cert)
	der, err := aead.Open(nil, sealed[32:44], sealed[sealHead:], append(sealed[:sealHead:sealHead], ca[:]...))
	if err != nil {
		return nil, fmt.Errorf("trust: %w for the key of authority %s (or the sealed key is damaged)", ErrPassphrase, ca)
	}
	key, err := parseSigner(der)
	if err != nil {
		return nil, fmt.Errorf("trust: key of authority %s: %w: %v", ca, format.ErrCorrupt, err)
	}
	a := &Authority{cert, key}
	return a, a.check()
}
