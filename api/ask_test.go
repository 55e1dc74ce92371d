package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"

	"github.com/sixpn/sixpn/api"
)

// answer is what came back.
type answer struct {
	code    int
	header  http.Header
	body    []byte
	failure api.Failure
}

func (a answer) into(t *testing.T, v any) {
	t.Helper()
	if err := json.Unmarshal(a.body, v); err != nil {
		t.Fatalf("answer %d %s: %v", a.code, a.body, err)
	}
}

// ask sends a request and checks that the answer is one that the document has.
func (w *world) ask(method, path, contentType, body string) answer {
	w.t.Helper()
	return w.holding("", method, path, contentType, body)
}

// holding is ask with the nonce of a lease.
func (w *world) holding(nonce, method, path, contentType, body string) answer {
	w.t.Helper()
	request, err := http.NewRequestWithContext(w.t.Context(), method, "http://sixpn"+path, strings.NewReader(body))
	must(w.t, err)
	if contentType != "" {
		request.Header.Set("Content-Type", contentType)
	}
	if nonce != "" {
		request.Header.Set("fly-machine-lease-nonce", nonce)
	}
	response, err := w.http.Do(request)
	must(w.t, err)
	defer response.Body.Close()
	a := answer{code: response.StatusCode, header: response.Header}
	a.body, err = io.ReadAll(response.Body)
	must(w.t, err)
	w.documented(request, body, a)
	if a.code >= 400 {
		a.into(w.t, &a.failure)
	}
	return a
}

// later asks while the test goes on. The answer is empty if there was none.
func (w *world) later(nonce, method, path, body string) <-chan answer {
	answered := make(chan answer, 1)
	go func() {
		defer close(answered)
		answered <- w.holding(nonce, method, path, contentType(body), body)
	}()
	return answered
}

func (w *world) get(path string) answer { return w.ask("GET", path, "", "") }
func (w *world) post(path, body string) answer {
	return w.ask("POST", path, "application/json", body)
}

// documented checks an answer by the document, and that it allows the request if
// the server did.
func (w *world) documented(request *http.Request, body string, a answer) {
	w.t.Helper()
	route, parameters, err := w.routes.FindRoute(request)
	if err != nil {
		if a.code != http.StatusNotFound && a.code != http.StatusMethodNotAllowed {
			w.t.Errorf("%s %s is answered %d and not in the document: %v", request.Method, request.URL, a.code, err)
		}
		return
	}
	request.Body = io.NopCloser(strings.NewReader(body))
	asked := &openapi3filter.RequestValidationInput{Request: request, PathParams: parameters, Route: route}
	if a.code < 400 {
		if err := openapi3filter.ValidateRequest(context.Background(), asked); err != nil {
			w.t.Errorf("%s %s %s is answered %d, but not as documented: %v", request.Method, request.URL, body, a.code, err)
		}
	}
	err = openapi3filter.ValidateResponse(context.Background(), &openapi3filter.ResponseValidationInput{
		RequestValidationInput: asked,
		Status:                 a.code, Header: a.header, Body: io.NopCloser(bytes.NewReader(a.body)),
		Options: &openapi3filter.Options{IncludeResponseStatus: true},
	})
	if err != nil {
		w.t.Errorf("the answer to %s %s is not as documented: %v", request.Method, request.URL, err)
	}
}

// A list of JSON objects, one a line, is documented as one of them.
func init() {
	openapi3filter.RegisterBodyDecoder("application/x-ndjson", func(body io.Reader, _ http.Header, _ *openapi3.SchemaRef, _ openapi3filter.EncodingFn) (any, error) {
		var line any
		err := json.NewDecoder(body).Decode(&line)
		return line, err
	})
	openapi3filter.RegisterBodyDecoder("application/yaml", openapi3filter.FileBodyDecoder)
}
