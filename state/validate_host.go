package state

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"net/netip"
	"strings"
	"unicode"
	"unicode/utf8"
)

// publicKeyLength is that of a WireGuard key, in bytes.
const publicKeyLength = 32

func validateNewHost(h NewHost) error {
	if err := ValidateHostName(h.Name); err != nil {
		return err
	}
	if err := ValidateRegion(h.Region); err != nil {
		return err
	}
	if h.PublicKey != "" {
		if err := ValidatePublicKey(h.PublicKey); err != nil {
			return err
		}
	}
	if h.Endpoint != "" {
		if err := ValidateEndpoint(h.Endpoint); err != nil {
			return err
		}
	}
	if h.Mesh != "" && h.Mesh != MeshWireGuard && h.Mesh != MeshNative {
		return refuse(Invalid, "mesh", "%.40q is no mode of the mesh: expected %s or %s", h.Mesh, MeshWireGuard, MeshNative)
	}
	if _, err := hex.DecodeString(h.CertificateKey); err != nil || h.CertificateKey != "" && len(h.CertificateKey) != 2*sha256.Size {
		return refuse(Invalid, "certificate_key", "%.80q is not the key of a certificate: expected its SHA-256 in hex", h.CertificateKey)
	}
	if len(h.Version) > 100 || !utf8.ValidString(h.Version) || strings.ContainsFunc(h.Version, unicode.IsControl) {
		return refuse(Invalid, "version", "%.40q is not the version of an agent: expected at most 100 bytes, printable", h.Version)
	}
	return nil
}

// ValidatePublicKey checks the public half of a WireGuard key.
func ValidatePublicKey(key string) error {
	decoded, err := base64.StdEncoding.Strict().DecodeString(key)
	if err != nil || len(decoded) != publicKeyLength {
		return refuse(Invalid, "public_key", "%.60q is not the public key of a mesh: expected %d bytes in base64", key, publicKeyLength)
	}
	return nil
}

// ValidateEndpoint checks where on the underlay the other hosts reach a host.
func ValidateEndpoint(endpoint string) error {
	a, err := netip.ParseAddrPort(endpoint)
	if err != nil || a.Port() == 0 || a.Addr().IsUnspecified() || a.Addr().IsMulticast() {
		return refuse(Invalid, "endpoint", "%.80q is not where a host can be reached: expected an address and a port, such as %q or %q", endpoint, "192.0.2.1:51821", "[2001:db8::1]:51821")
	}
	return nil
}
