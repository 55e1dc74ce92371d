package fleet

import (
	"crypto/tls"
	"errors"
)

// certificate is the newest.
func (f *Fleet) certificate() (*tls.Certificate, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.pair == nil {
		return nil, errors.New("this host has no certificate of the fleet yet")
	}
	return f.pair, nil
}

// ClientTLS is for calling the store and other hosts, which must be of this fleet. It
// always shows the newest certificate. Only a host that is Ready may ask.
func (f *Fleet) ClientTLS() *tls.Config {
	f.mu.Lock()
	defer f.mu.Unlock()
	return &tls.Config{
		MinVersion: tls.VersionTLS13, RootCAs: poolOf(f.authority),
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return f.certificate() },
	}
}

// serverTLS is for being called; who has a certificate must have one of this fleet.
func (f *Fleet) serverTLS() *tls.Config {
	f.mu.Lock()
	defer f.mu.Unlock()
	return &tls.Config{
		MinVersion: tls.VersionTLS13, ClientCAs: poolOf(f.authority), ClientAuth: tls.VerifyClientCertIfGiven,
		NextProtos:     []string{"h2", "http/1.1"},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return f.certificate() },
		// A ticket would outlive the certificate it was given for.
		SessionTicketsDisabled: true,
	}
}
