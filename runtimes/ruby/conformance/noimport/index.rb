require "not_to_be_found_anywhere"
