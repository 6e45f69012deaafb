package certs

import (
	"fmt"
	"io"
	"net/http"
	"reflect"

	"github.com/caddyserver/certmagic"
)

const (
	// answerBytesMax bounds an answer of a CA. The largest that is of use, a
	// certificate's chain or an order for a hundred names, has some ten KiB.
	answerBytesMax = 1 << 20
	// answerFieldsMax bounds its header section.
	answerFieldsMax = 64 << 10
)

// bound has the issuer take no more of an answer than there can be of use: its
// library reads all that comes, for up to 30 s. The library keeps its client to
// itself, so the client is looked up by its name; where a later version has none
// of that name, this is an error and nobody is asked without a bound.
func bound(issuer *certmagic.ACMEIssuer) error {
	f := reflect.ValueOf(issuer).Elem().FieldByName("httpClient")
	if !f.IsValid() || f.Type() != reflect.TypeFor[*http.Client]() || f.IsNil() {
		return fmt.Errorf("this version of certmagic has no client whose answers could be bounded")
	}
	client := (*http.Client)(f.UnsafePointer())
	if t, ok := client.Transport.(*http.Transport); ok {
		t.MaxResponseHeaderBytes = answerFieldsMax
	}
	client.Transport = bounded{client.Transport}
	return nil
}

// bounded is a transport whose answers have answerBytesMax of content at most.
type bounded struct{ http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (b bounded) RoundTrip(req *http.Request) (*http.Response, error) {
	res, err := b.RoundTripper.RoundTrip(req)
	if err == nil {
		res.Body = &boundedBody{res.Body, answerBytesMax}
	}
	return res, err
}

// boundedBody fails when there is more than left.
type boundedBody struct {
	io.ReadCloser
	left int
}

// Read implements io.Reader.
func (b *boundedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p[:min(len(p), b.left+1)])
	if n > b.left {
		return b.left, fmt.Errorf("the CA's answer has more than %d bytes", answerBytesMax)
	}
	b.left -= n
	return n, err
}
